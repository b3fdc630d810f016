"""Correlation of activations of two dictionaries' features over the rows of a store.

All pairs would be F_1 x F_2 sums. Kept are those of every feature with its candidates by direction,
and of features that no hookpoint sees together (an exclusive one of each model), which have no
direction to compare: sums of F C numbers and of |group| x |group|. What is kept is exact, in
float64: of 193 features that correlate by 0.7 or more with one of all those of another seed's DFC
of the demo, 190 do with one of 16 candidates. Per batch it costs the other dictionary's encoder and
N C products of single numbers.
B batch rows, F features, C candidates, N active entries.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from analyze.compare.directions import Candidates, Nearest
from analyze.subject import Subject
from analyze.sweep.seen import Seen
from train.dictionary.codes import SparseCodes

BLOCK_PRODUCTS = 1 << 22  # of float64 at a time: 32 MiB
SIDES = ("first", "other")


@dataclass(frozen=True)
class Correlations:
    """Pearson's r over all rows; NaN where a feature never fires or a candidate is missing.

    of_first, of_other: with each candidate; apart: of the groups that no hookpoint sees together.
    """

    of_first: Float[Tensor, "features candidates"]
    of_other: Float[Tensor, "other_features other_candidates"]
    apart: list[Tensor]


class Coactivation:
    """Sums of f_j f_k over rows for the pairs in `nearest`, and the moments of every feature.

    It is a sweep's accumulator over `first`; the rows are encoded with `other` besides.
    """

    name = "coactivation"

    def __init__(self, first: Subject, other: Subject, nearest: Nearest) -> None:
        self._other, self._nearest = other, nearest
        device = first.device

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(*shape, dtype=torch.float64, device=device)

        self._rows = zeros(1)
        self._sums: dict[str, Tensor] = {"rows": self._rows}
        for side, features in zip(SIDES, (first.features, other.features), strict=True):
            for moment in ("fires", "sum", "squares"):
                self._sums[f"{side}.{moment}"] = zeros(features)
            self._sums[f"{side}.near"] = zeros(*self._candidates(side).features.shape)
        for n, (rows, columns) in enumerate(nearest.apart):
            self._sums[f"apart.{n}"] = zeros(rows.stop - rows.start, columns.stop - columns.start)

    def settings(self) -> dict[str, Any]:
        """The other dictionary, and the pairs: another machine may find others equally near."""
        pairs = hashlib.sha256()
        for side in SIDES:
            pairs.update(self._candidates(side).features.cpu().numpy().tobytes())
        return {"other": self._other.fingerprint, "candidates": pairs.hexdigest()}

    @torch.no_grad()
    def update(self, seen: Seen) -> None:
        """Takes a batch in."""
        codes = (seen.codes, self._other.dictionary.encode(seen.activations))
        dense = [one.dense() for one in codes]
        self._rows += codes[0].batch
        for side, own, facing_BF in zip(SIDES, codes, reversed(dense), strict=True):
            self._add_moments(side, own)
            near_FC = self._sums[f"{side}.near"]
            _add_products(near_FC, own, facing_BF, self._candidates(side).features)
        for n, (rows, columns) in enumerate(self._nearest.apart):
            self._sums[f"apart.{n}"] += dense[0][:, rows].double().T @ dense[1][:, columns].double()

    def state(self) -> dict[str, Tensor]:
        """All sums."""
        return self._sums

    def absorb(self, state: dict[str, Tensor]) -> None:
        """Adds sums over other rows."""
        for name, value in self._sums.items():
            value += state[name].to(value.device)

    def fires(self) -> tuple[Float[Tensor, " features"], Float[Tensor, " other_features"]]:
        """Rows on which each feature of both dictionaries fires."""
        return self._sums["first.fires"], self._sums["other.fires"]

    def correlations(self) -> Correlations:
        """What the rows so far come to."""
        near = []
        for side, facing in (SIDES, SIDES[::-1]):
            places_FC = self._candidates(side).features
            among_FC = places_FC.clamp(min=0)
            sum_FC, spread_FC = (
                self._sums[f"{facing}.sum"][among_FC],
                self._spread(facing)[among_FC],
            )
            own_F, spread_F = self._sums[f"{side}.sum"], self._spread(side)
            products_FC = self._rows * self._sums[f"{side}.near"] - own_F[:, None] * sum_FC
            found_FC = products_FC / (spread_F[:, None] * spread_FC)
            near.append(found_FC.masked_fill(places_FC < 0, torch.nan))
        apart = [self._apart(n, *slices) for n, slices in enumerate(self._nearest.apart)]
        return Correlations(near[0], near[1], apart)

    def _apart(self, number: int, rows: slice, columns: slice) -> Tensor:
        sums = [self._sums[f"{side}.sum"] for side in SIDES]
        expected = torch.outer(sums[0][rows], sums[1][columns])
        spread = torch.outer(self._spread("first")[rows], self._spread("other")[columns])
        return (self._rows * self._sums[f"apart.{number}"] - expected) / spread

    def _spread(self, side: str) -> Float[Tensor, " features"]:
        """Rows times each feature's standard deviation; NaN where that is zero."""
        square = self._rows * self._sums[f"{side}.squares"] - self._sums[f"{side}.sum"].square()
        return torch.where(square > 0, square, torch.nan).sqrt()

    def _candidates(self, side: str) -> Candidates:
        return self._nearest.of_first if side == "first" else self._nearest.of_other

    def _add_moments(self, side: str, codes: SparseCodes) -> None:
        columns, values = codes.pattern.columns, codes.values.double()
        for moment, terms in (
            ("fires", torch.ones_like(values)),
            ("sum", values),
            ("squares", values.square()),
        ):
            sums = self._sums[f"{side}.{moment}"]
            sums += torch.bincount(columns, terms, len(sums))


def _add_products(
    sums_FC: Float[Tensor, "features candidates"],
    codes: SparseCodes,
    facing_BF: Float[Tensor, "batch facing_features"],
    places_FC: Int[Tensor, "features candidates"],
) -> None:
    """Adds each entry's activation times that of each of its feature's candidates on its row."""
    columns, values = codes.pattern.columns, codes.values.double()
    among_FC, facing = places_FC.clamp(min=0), facing_BF.reshape(-1)
    row_starts = codes.pattern.rows * facing_BF.shape[1]
    step = max(1, BLOCK_PRODUCTS // max(1, sums_FC.shape[1]))
    for start in range(0, len(values), step):
        part = slice(start, start + step)
        flat_NC = among_FC.index_select(0, columns[part]) + row_starts[part, None]
        facing_NC = facing.index_select(0, flat_NC.reshape(-1)).view_as(flat_NC)
        sums_FC.index_add_(0, columns[part], values[part, None] * facing_NC)
