"""For every feature of two dictionaries, those of the other that point most nearly its way.

Cosine of decoders in scaled units, over the hookpoints that both features see, as of one vector;
exact, over all pairs. Costs 2 F_1 F_2 D FLOPs (one product of the two decoders) and memory for a
block of the cosines. F_1, F_2 features of the dictionaries, C candidates, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pipeline.errors import DictionaryError
from train.dictionary.crosscoder import Crosscoder
from train.dictionary.partition import FeatureGroup

BLOCK_COSINES = 1 << 25  # of float32: 128 MiB


@dataclass(frozen=True)
class Candidates:
    """Per feature those of the other dictionary nearest to it, nearest first, and their cosines.

    -1 and NaN where there are fewer.
    """

    features: Int[Tensor, "features candidates"]
    cosines: Float[Tensor, "features candidates"]


@dataclass(frozen=True)
class Nearest:
    """Candidates both ways.

    apart: groups of both dictionaries that no hookpoint sees together, whose features therefore
    have no cosine.
    """

    of_first: Candidates
    of_other: Candidates
    apart: list[tuple[slice, slice]]


@torch.no_grad()
def nearest(
    first: Crosscoder,
    other: Crosscoder,
    count: int,
    on_pairs: Callable[[int], None] = lambda pairs: None,
) -> Nearest:
    """The `count` nearest of each feature; on_pairs is told how many pairs have been looked at.

    Raises DictionaryError if the two reconstruct no hookpoint in common.
    """
    common = _common_hookpoints(first, other)
    sizes = first.partition.features, other.partition.features
    device = first.b_enc.device
    of_first = _Running(sizes[0], min(count, sizes[1]), device)
    of_other = _Running(sizes[1], min(count, sizes[0]), device)
    apart = []
    for group, rows in _groups(first):
        for other_group, columns in _groups(other):
            models = set(group.models) & set(other_group.models)
            pairs = [pair for pair in common if first.hookpoints[pair[0]].model in models]
            if not pairs:
                apart.append((rows, columns))
                on_pairs(group.size * other_group.size)
                continue
            right_CD = _directions(other, [n for _, n in pairs], columns)
            step = max(1, BLOCK_COSINES // other_group.size)
            for start in range(rows.start, rows.stop, step):
                block = slice(start, min(start + step, rows.stop))
                left_RD = _directions(first, [n for n, _ in pairs], block)
                cosines_RC = left_RD @ right_CD.T
                cosines_RC[~left_RD.any(dim=1)] = -torch.inf
                cosines_RC[:, ~right_CD.any(dim=1)] = -torch.inf
                of_first.add(block, cosines_RC, columns.start)
                of_other.add(columns, cosines_RC.T, block.start)
                on_pairs(cosines_RC.numel())
    return Nearest(of_first.found(), of_other.found(), apart)


class _Running:
    """The largest cosines of every feature so far."""

    def __init__(self, features: int, count: int, device: torch.device) -> None:
        self._cosines = torch.full((features, count), -torch.inf, device=device)
        self._features = torch.full((features, count), -1, device=device)

    def add(self, rows: slice, cosines_RC: Tensor, first: int) -> None:
        """Cosines of the features `rows` with those of the other dictionary from `first` on."""
        count = self._cosines.shape[1]
        values, places = cosines_RC.topk(min(count, cosines_RC.shape[1]), dim=1)
        values = torch.cat([self._cosines[rows], values], dim=1)
        features = torch.cat([self._features[rows], places + first], dim=1)
        self._cosines[rows], order = values.topk(count, dim=1)
        self._features[rows] = features.gather(1, order)

    def found(self) -> Candidates:
        nothing = self._cosines == -torch.inf
        return Candidates(
            self._features.masked_fill(nothing, -1), self._cosines.masked_fill(nothing, torch.nan)
        )


def _common_hookpoints(first: Crosscoder, other: Crosscoder) -> list[tuple[int, int]]:
    """Numbers of the hookpoints that both reconstruct."""
    numbers = {other.hookpoints[n].name: n for n in other.outputs}
    names = [(n, first.hookpoints[n].name) for n in first.outputs]
    common = [(n, numbers[name]) for n, name in names if name in numbers]
    if not common:
        raise DictionaryError(
            f"the dictionaries have no reconstructed hookpoint in common: one has "
            f"{', '.join(name for _, name in names)}, the other {', '.join(numbers)}"
        )
    return common


def _groups(dictionary: Crosscoder) -> list[tuple[FeatureGroup, slice]]:
    partition = dictionary.partition
    return [(group, partition.slices[group.name]) for group in partition.groups if group.size]


def _directions(
    dictionary: Crosscoder, numbers: list[int], features: slice
) -> Float[Tensor, "block width"]:
    """Decoders of features over these hookpoints, which see all of them, as unit vectors.

    Zeros where a feature has no norm there.
    """
    parts = []
    for n in numbers:
        local = dictionary.visibility(n).local_F[features]
        parts.append(dictionary.W_dec[str(n)][local].float() * dictionary.norm_scale[n].float())
    joined = torch.cat(parts, dim=1)
    norms = joined.norm(dim=1, keepdim=True)
    return torch.where(norms > 0, joined / norms, 0.0)
