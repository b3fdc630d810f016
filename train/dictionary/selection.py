"""Which entries of the pre-activations become codes.

In training BatchTopK keeps the k * batch largest scores of the whole batch (arXiv 2412.06410);
at inference every score above a learned threshold, so that a row's code does not depend on the
other rows. A score is relu(pre) times the feature's code normalization; the kept value is
relu(pre) itself.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from train.config import NormalizationName
from train.dictionary.codes import Pattern

SAMPLE_STRIDE = 61  # a prime, so that the sample meets every feature


def code_normalization(
    kind: NormalizationName,
    norms_HF: Float[Tensor, "hookpoints features"],
    seen_HF: Float[Tensor, "hookpoints features"],
) -> Float[Tensor, " features"]:
    """What a feature's code is multiplied with to be ranked.

    crosscoder: sum of decoder norms, the field's default. A shared feature then scores about
    twice an exclusive one of the same norm per model; per_model divides by the number of models
    that see the feature. sae: norm of the concatenated decoder. none: 1.
    """
    if kind == "crosscoder":
        return norms_HF.sum(dim=0)
    if kind == "per_model":
        return norms_HF.sum(dim=0) / seen_HF.sum(dim=0)
    if kind == "sae":
        return norms_HF.square().sum(dim=0).sqrt()
    return torch.ones_like(norms_HF[0])


def batch_topk(
    pre_BF: Float[Tensor, "batch features"], scale_F: Float[Tensor, " features"], k: int
) -> tuple[Pattern, Float[Tensor, ""]]:
    """The k * batch largest scores, and the smallest of them (0 if there are fewer positive)."""
    batch, features = pre_BF.shape
    scores = (pre_BF * scale_F).view(-1)
    count = min(k * batch, scores.numel())
    if scores.device.type == "cpu":
        positions, smallest = largest_positive(scores.numpy(), count)
        flat = torch.from_numpy(positions)
        return Pattern(flat, batch, features), torch.tensor(smallest, dtype=scores.dtype)
    top = scores.relu_().topk(count, sorted=False)
    return Pattern(top.indices.sort().values, batch, features), top.values.min()


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
    threshold: Float[Tensor, ""],
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
