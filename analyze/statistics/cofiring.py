"""How two sets of features fire on the same rows: for each pair, on how many, and how alike.

Exact: counts are whole numbers, sums of products of activations are in float64. Memory: two
matrices (first x second) in 8 bytes, and pairs of a batch, PAIRS_AT_ONCE at a time. Costs the
pairs that fire together, not first x second.
A features of the first set, S of the second, N pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from analyze.sweep.seen import Seen

PAIRS_AT_ONCE = 1 << 22
ROUNDING = 1e-9  # share of a sum of squares, below which a variance is none


@dataclass(frozen=True)
class Together:
    """Pairs of features (N,): rows on which both fire, Jaccard index, Pearson correlation.

    jaccard: rows where both fire over rows where either does; correlation: of the activations
    over all rows, those without a firing counting as 0; NaN where one does not vary.
    """

    first: Int64[np.ndarray, " pairs"]
    second: Int64[np.ndarray, " pairs"]
    both: Int64[np.ndarray, " pairs"]
    jaccard: Float64[np.ndarray, " pairs"]
    correlation: Float64[np.ndarray, " pairs"]


class CoFiring:
    """Pairs of a feature of `first` and one of `second`: numbers of features, ascending."""

    name = "cofiring"

    def __init__(
        self,
        features: int,
        first: Int64[np.ndarray, " first"],
        second: Int64[np.ndarray, " second"],
        device: torch.device | str = "cpu",
    ) -> None:
        self.first, self.second = first, second
        self._sides = tuple(_Side(features, own, device) for own in (first, second))
        size = (len(first), len(second))
        self._both = torch.zeros(size, dtype=torch.int64, device=device)
        self._products = torch.zeros(size, dtype=torch.float64, device=device)
        self._rows = torch.zeros(1, dtype=torch.int64)

    def settings(self) -> dict[str, Any]:
        """The two sets."""
        return {"first": self.first.tolist(), "second": self.second.tolist()}

    def update(self, seen: Seen) -> None:
        """Takes a batch in."""
        pattern, values = seen.codes.pattern, seen.codes.values.double()
        rows, columns = pattern.rows, pattern.columns
        first, second = (side.take(rows, columns, values) for side in self._sides)
        self._rows += pattern.batch
        for here, there in _pairs(first.rows, second.rows, pattern.batch):
            flat = first.places[here] * len(self.second) + second.places[there]
            self._both.view(-1).index_add_(0, flat, torch.ones_like(flat))
            products = first.values[here] * second.values[there]
            self._products.view(-1).index_add_(0, flat, products)

    def state(self) -> dict[str, Tensor]:
        """All sums."""
        own = {"both": self._both, "products": self._products, "rows": self._rows}
        for name, side in zip(("first", "second"), self._sides, strict=True):
            own |= {f"{name}.{key}": value for key, value in side.sums.items()}
        return own

    def absorb(self, state: dict[str, Tensor]) -> None:
        """Adds sums over other rows."""
        for name, value in self.state().items():
            value += state[name].to(value.device)

    def fires(self) -> tuple[Int64[np.ndarray, " first"], Int64[np.ndarray, " second"]]:
        """On how many rows each feature of both sets fires."""
        first, second = (side.sums["fires"].long().cpu().numpy() for side in self._sides)
        return first, second

    def together(self, least: int) -> Together:
        """Every pair that fires on the same row on at least `least` rows, one or more."""
        assert least > 0
        first, second = (self._both >= least).nonzero(as_tuple=True)
        both, products = self._both[first, second], self._products[first, second]
        own = [
            {name: value[index] for name, value in side.sums.items()}
            for side, index in zip(self._sides, (first, second), strict=True)
        ]
        either = own[0]["fires"] + own[1]["fires"] - both
        rows = int(self._rows)
        covariance = products - own[0]["activation"] * own[1]["activation"] / rows
        spread = [side["squares"] - side["activation"].square() / rows for side in own]
        varies = [s > ROUNDING * side["squares"] for s, side in zip(spread, own, strict=True)]
        correlation = covariance / (spread[0] * spread[1]).sqrt()
        correlation = correlation.where(varies[0] & varies[1], torch.nan)
        found = (both, both / either, correlation)
        return Together(
            self.first[first.cpu().numpy()],
            self.second[second.cpu().numpy()],
            *(value.cpu().numpy() for value in found),
        )


@dataclass(frozen=True)
class _Entries:
    """Entries of one set (entries,), row by row: batch row, place in the set, activation."""

    rows: Tensor
    places: Tensor
    values: Tensor


class _Side:
    """One of the two sets: where its features are, and what each sums up alone."""

    def __init__(
        self, features: int, own: Int64[np.ndarray, " own"], device: torch.device | str
    ) -> None:
        self._local_F = torch.full((features,), -1, dtype=torch.int64, device=device)
        self._local_F[torch.from_numpy(own).to(device)] = torch.arange(len(own), device=device)
        self.sums = {
            name: torch.zeros(len(own), dtype=torch.float64, device=device)
            for name in ("fires", "activation", "squares")
        }

    def take(self, rows: Tensor, columns: Tensor, values: Tensor) -> _Entries:
        """The set's entries of a batch, added to its sums."""
        places = self._local_F[columns]
        mine = (places >= 0).nonzero().squeeze(1)
        found = _Entries(rows[mine], places[mine], values[mine])
        powers = (torch.ones_like(found.values), found.values, found.values.square())
        for total, power in zip(self.sums.values(), powers, strict=True):
            total.index_add_(0, found.places, power)
        return found


def _pairs(first_rows: Tensor, second_rows: Tensor, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Indices of both entries of each pair in one row; both rows ascend."""
    count_B = torch.bincount(second_rows, minlength=batch)
    start_B = count_B.cumsum(0) - count_B
    partners = count_B[first_rows]
    reached = partners.cumsum(0)
    total = int(reached[-1]) if len(reached) else 0
    edges = torch.arange(0, total, PAIRS_AT_ONCE, device=reached.device)
    starts = [*torch.searchsorted(reached, edges, right=True).tolist(), len(first_rows)]
    for begin, end in pairwise(starts):
        index = torch.arange(begin, end, device=reached.device)
        here = index.repeat_interleave(partners[begin:end])
        before = reached[here] - partners[here]
        offset = before[0] if len(before) else 0
        place = torch.arange(len(here), device=reached.device) + offset - before
        yield here, start_B[first_rows[here]] + place
