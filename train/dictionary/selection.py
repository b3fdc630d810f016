"""Which entries of the pre-activations become codes.

In training BatchTopK keeps the k * batch largest scores of the whole batch (arXiv 2412.06410);
at inference every score above a learned threshold, so that a row's code does not depend on the
other rows. A score is relu(pre) times the feature's code normalization; the kept value is
relu(pre) itself.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from train.dictionary.block_topk import largest_of_blocks
from train.dictionary.codes import Pattern
from train.global_batch import GlobalBatch

SAMPLE_STRIDES = (1021, 251, 61)  # primes, so that the sample meets every feature
SAMPLE_HITS = 400  # entries of the sample that should be among the largest, for a close guess
BLOCK_ENTRIES = 2**18  # of a byte each: what a core's cache holds beside the pre-activations
SMALLEST_BOUND = 1e-30  # numbers near float32's smallest have less than its relative precision
ROUNDING = 1e-5  # relative; more than a division and a product in float32 lose


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
    if whole is not None and not whole.alone:
        count = min(k * whole.rows if count is None else count, whole.rows * features)
        flat, scores, _ = _largest(pre_BF, scale_F, min(count, pre_BF.numel()))
        flat, smallest = whole.largest(flat, scores, count)
    else:
        count = min(k * batch if count is None else count, pre_BF.numel())
        flat, _, smallest = _largest(pre_BF, scale_F, count)
    return Pattern(flat, batch, features), smallest


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


def _largest(pre_BF: Tensor, scale_F: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Positions, ascending, of the `count` largest scores, these scores, and the smallest.

    On a CPU only positive ones.
    """
    if count == 0:
        none = pre_BF.new_empty(0)
        return torch.empty(0, dtype=torch.int64, device=none.device), none, none.new_zeros(())
    if pre_BF.device.type == "cpu":
        return largest_positive(pre_BF, scale_F, count)
    return largest_of_blocks(pre_BF, scale_F, count)


def largest_positive(
    pre_BF: Float[Tensor, "batch features"], scale_F: Float[Tensor, " features"], count: int
) -> tuple[Int[Tensor, " kept"], Float[Tensor, " kept"], Float[Tensor, ""]]:
    """Positions, ascending, of the `count` largest positive scores, the scores, their smallest.

    All positive ones, and 0, if there are fewer. Equal scores are taken from the front. A sample
    guesses a bound that a few more than `count` scores exceed, and one pass over the batch finds
    them; where they are fewer, every positive score is looked at, so the result is exact whatever
    the sample says. torch.topk takes ten times as long on a CPU, half of a training step.
    """
    bound = _guessed_bound(pre_BF, scale_F, count)
    flat, scores = _scores_above(pre_BF, scale_F, bound)
    if bound > 0 and len(flat) < count:
        flat, scores = _scores_above(pre_BF, scale_F, 0.0)
    if len(flat) < count:
        return flat, scores, scores.new_zeros(())
    values = scores.numpy()
    smallest = np.partition(values, len(values) - count)[len(values) - count]
    kept = values > smallest
    kept[np.flatnonzero(values == smallest)[: count - np.count_nonzero(kept)]] = True
    chosen = torch.from_numpy(np.flatnonzero(kept))
    return flat[chosen], scores[chosen], torch.tensor(smallest)


def _guessed_bound(pre_BF: Tensor, scale_F: Tensor, count: int) -> float:
    """From a sample: what a few more than `count` scores exceed; 0: every positive one."""
    stride = next((s for s in SAMPLE_STRIDES if count >= SAMPLE_HITS * s), SAMPLE_STRIDES[-1])
    places = torch.arange(0, pre_BF.numel(), stride)
    sample = (pre_BF.reshape(-1)[places] * scale_F[places % pre_BF.shape[1]]).numpy()
    expected = count * len(sample) / pre_BF.numel()
    rank = int(1.1 * expected + 4 * expected**0.5) + 1
    if rank >= len(sample):
        return 0.0
    bound = float(np.partition(sample, -rank)[-rank])
    return bound if bound > SMALLEST_BOUND else 0.0


def _scores_above(pre_BF: Tensor, scale_F: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    """Positions, ascending, and values of all scores above `bound`, which is not negative.

    Scores are not written out: pre-activations are compared with what they must exceed, a little
    less because of rounding, and multiplied where they do.
    """
    limit_F = torch.where(scale_F > 0, bound / scale_F * (1 - ROUNDING), torch.inf)
    flat = torch.from_numpy(_positions_above(pre_BF.numpy(), limit_F.numpy()))
    scores = pre_BF.reshape(-1)[flat] * scale_F[flat % len(scale_F)]
    kept = scores > bound
    return (flat, scores) if kept.all() else (flat[kept], scores[kept])


def _positions_above(pre_BF: np.ndarray, limit_F: np.ndarray) -> np.ndarray:
    """Positions where pre > limit, by blocks of rows that fit a cache.

    By numpy, whose comparison into a buffer that is there reads three times as fast as torch's.
    """
    batch, features = pre_BF.shape
    step = max(1, BLOCK_ENTRIES // features)
    above = np.empty((step, features), bool)
    found = []
    for first in range(0, batch, step):
        block = pre_BF[first : first + step]
        here = np.greater(block, limit_F, out=above[: len(block)])
        found.append(np.flatnonzero(here) + first * features)
    return np.concatenate(found)


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
