"""Which entries of the pre-activations become codes.

In training BatchTopK keeps the k * batch largest scores of the whole batch (arXiv 2412.06410);
at inference every score above a learned threshold, so that a row's code does not depend on the
other rows. A score is relu(pre) times the feature's code normalization; the kept value is
relu(pre) itself.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from train.dictionary.codes import Pattern
from train.global_batch import GlobalBatch

SAMPLE_STRIDE = 61  # a prime, so that the sample meets every feature


def batch_topk(
    pre_BF: Float[Tensor, "batch features"],
    scale_F: Float[Tensor, " features"],
    k: int,
    count: int | None = None,
    whole: GlobalBatch | None = None,
) -> tuple[Pattern, Float[Tensor, ""]]:
    """The k * batch (or `count`) largest scores, and the smallest of them.

    That is 0 if fewer are positive. `whole`: the global batch that these rows are some of; it is
    of all its rows that the largest are found, while the pattern is of these.
    """
    batch, features = pre_BF.shape
    scores = (pre_BF * scale_F).view(-1)
    if whole is not None and not whole.alone:
        count = min(k * whole.rows if count is None else count, whole.rows * features)
        flat, smallest = whole.largest(*_candidates(scores, min(count, scores.numel())), count)
        return Pattern(flat, batch, features), smallest
    count = min(k * batch if count is None else count, scores.numel())
    if scores.device.type == "cpu":
        positions, least = largest_positive(scores.numpy(), count)
        flat = torch.from_numpy(positions)
        return Pattern(flat, batch, features), torch.tensor(least, dtype=scores.dtype)
    top = scores.relu_().topk(count, sorted=False)
    return Pattern(top.indices.sort().values, batch, features), top.values.min()


def batch_topk_each(
    pre_BF: Float[Tensor, "batch features"],
    scale_HF: Float[Tensor, "hookpoints features"],
    k: int,
    hookpoints: list[int],
    whole: GlobalBatch | None = None,
) -> tuple[Pattern, Float[Tensor, " hookpoints"], Bool[Tensor, "hookpoints entries"]]:
    """The k * batch largest scores of each of these hookpoints, all in one pattern.

    With it the smallest score of each, and which entries are on for which. `whole` as above.
    """
    own = {n: batch_topk(pre_BF, scale_HF[n], k, whole=whole) for n in hookpoints}
    flat = torch.cat([pattern.flat for pattern, _ in own.values()]).unique()
    smallest = pre_BF.new_zeros(len(scale_HF))
    on_HN = torch.zeros(len(scale_HF), len(flat), dtype=torch.bool, device=flat.device)
    for n, (pattern, least) in own.items():
        smallest[n] = least
        on_HN[n, torch.searchsorted(flat, pattern.flat)] = True
    return Pattern(flat, *pre_BF.shape), smallest, on_HN


def _candidates(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Positions, ascending, of the `count` largest scores, and the scores there."""
    if count == 0:
        flat = torch.empty(0, dtype=torch.int64, device=scores.device)
    elif scores.device.type == "cpu":
        flat = torch.from_numpy(largest_positive(scores.numpy(), count)[0])
    else:
        flat = scores.topk(count, sorted=False).indices.sort().values
    return flat, scores[flat].relu()


def largest_positive(scores: np.ndarray, count: int) -> tuple[np.ndarray, float]:
    """Positions, ascending, of the `count` largest positive scores, and the smallest of these.

    All positive ones, and 0, if there are fewer. Equal scores are taken from the front. torch.topk
    on 2M scores takes 46 ms on a CPU, half of a training step; this takes 3 ms. A sample guesses a
    bound that a few more than `count` scores exceed; where fewer do, every positive score is
    looked at, so the result is exact whatever the sample says.
    """
    sample = scores[::SAMPLE_STRIDE]
    expected = count * len(sample) / len(scores)
    rank = int(1.1 * expected + 4 * expected**0.5) + 1
    bound = np.partition(sample, -rank)[-rank] if rank < len(sample) else scores.dtype.type(0)
    candidates = np.flatnonzero(scores > max(bound, 0))
    if bound > 0 and len(candidates) < count:
        candidates = np.flatnonzero(scores > 0)
    if len(candidates) < count:
        return candidates, 0.0
    values = scores[candidates]
    smallest = np.partition(values, len(values) - count)[len(values) - count]
    kept = values > smallest
    kept[np.flatnonzero(values == smallest)[: count - np.count_nonzero(kept)]] = True
    return candidates[kept], float(smallest)


def above_threshold(
    pre_BF: Float[Tensor, "batch features"],
    scale_F: Float[Tensor, " features"],
    threshold: Float[Tensor, "*features"],
) -> Pattern:
    """Every entry whose score is positive and above the threshold."""
    batch, features = pre_BF.shape
    kept = (pre_BF.relu() * scale_F > threshold).view(-1)
    return Pattern(kept.nonzero().squeeze(1), batch, features)


def topk_of_groups(
    pre_BF: Float[Tensor, "batch features"], groups: list[tuple[Tensor, int]]
) -> Pattern:
    """Per row and group: its `count` largest pre-activations among the group's `members`."""
    batch, features = pre_BF.shape
    offsets = torch.arange(batch, device=pre_BF.device)[:, None] * features
    picked = []
    for members, count in groups:
        top = pre_BF[:, members].topk(min(count, len(members)), dim=1, sorted=False).indices
        picked.append((members[top] + offsets).view(-1))
    return Pattern(torch.cat(picked).sort().values, batch, features)
