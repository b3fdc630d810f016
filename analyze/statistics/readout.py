"""What goes along with each feature's activation in every hookpoint's activations.

Per feature sum f, sum f^2 and sum f z, with z as in `analyze.statistics.moments`: beside the
moments of z all that the best linear readout of f from z needs. Sparse: k W multiplications per
row. Memory: F x W numbers in float64. F features, W summed widths, D some of them, N entries of
a batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from analyze.statistics.moments import Centred
from analyze.subject import Subject
from analyze.sweep.seen import Seen


@dataclass(frozen=True)
class Sums:
    """Over `rows` rows, float64: sums of f and of f^2, and of f z at some coordinates of z."""

    rows: int
    sum_F: Float[Tensor, " features"]
    squares_F: Float[Tensor, " features"]
    products_FD: Float[Tensor, "features width"]


class Readout:
    """Sums of every feature's activation, alone and times the activations it is read from."""

    name = "readout"

    def __init__(self, subject: Subject) -> None:
        self._centred = Centred(subject)
        self._rows = torch.zeros((), dtype=torch.int64)
        self._sum = torch.zeros(subject.features, dtype=torch.float64, device=subject.device)
        self._squares = torch.zeros_like(self._sum)
        self._products = self._sum.new_zeros(subject.features, self._centred.width)

    def settings(self) -> dict[str, Any]:
        """None."""
        return {}

    @torch.no_grad()
    def update(self, seen: Seen) -> None:
        """Takes a batch in."""
        pattern, values_N = seen.codes.pattern, seen.codes.values.detach()
        exact_N = values_N.double()
        self._rows += seen.codes.batch
        self._sum.index_add_(0, pattern.columns, exact_N)
        self._squares.index_add_(0, pattern.columns, exact_N.square())
        for number, place in enumerate(self._centred.slices):  # one at a time: bounds the memory
            z_BD = self._centred.of(seen, number)
            self._products[:, place] += pattern.transposed_product(values_N, z_BD)

    def state(self) -> dict[str, Tensor]:
        """All sums."""
        return {
            "rows": self._rows,
            "sum": self._sum,
            "squares": self._squares,
            "products": self._products,
        }

    def absorb(self, state: dict[str, Tensor]) -> None:
        """Adds sums over other rows."""
        for name, value in self.state().items():
            value += state[name].to(value.device)

    @property
    def features(self) -> int:
        """Features of the dictionary (F)."""
        return len(self._sum)

    def sums(self, features: slice, places_D: Int[Tensor, " width"]) -> Sums:
        """Those of a run of features, at these of the summed widths."""
        return Sums(
            int(self._rows),
            self._sum[features],
            self._squares[features],
            self._products[features][:, places_D],
        )
