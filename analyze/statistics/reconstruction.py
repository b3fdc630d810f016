"""How well the dictionary reconstructs each hookpoint, by label, apart for held-out documents.

Sums in float64 of scaled units; FVE does not depend on the units, nor on a subtracted mean.
H hookpoints, L labels, C = 2 L cells: a label's training rows, then its held-out ones, D width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from analyze.subject import Subject
from analyze.sweep.seen import Seen
from train.variance import fve


class Reconstruction:
    """Squared errors, squares and sums of each hookpoint that is written; rows, active features."""

    name = "reconstruction"

    def __init__(self, subject: Subject) -> None:
        self._labels = subject.labels.names
        self._fraction = subject.validation_fraction
        dictionary = subject.dictionary
        self._written = {n: dictionary.hookpoints[n] for n in dictionary.outputs}
        cells, device = 2 * len(self._labels), subject.device

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(*shape, dtype=torch.float64, device=device)

        self._sums = {"rows": zeros(cells), "active": zeros(cells)}
        for n, hookpoint in self._written.items():
            self._sums |= {f"error.{n}": zeros(cells), f"squares.{n}": zeros(cells)}
            self._sums[f"total.{n}"] = zeros(cells, hookpoint.width)

    def settings(self) -> dict[str, Any]:
        """The labels, and the share of documents held out."""
        return {"labels": self._labels, "validation_fraction": self._fraction}

    def update(self, seen: Seen) -> None:
        """Takes a batch in."""
        device = self._sums["rows"].device
        cell = torch.from_numpy(seen.labels + len(self._labels) * seen.held_out).long().to(device)
        row_starts = seen.codes.pattern.row_starts
        ones = torch.ones(len(cell), dtype=torch.float64, device=device)
        self._sums["rows"].index_add_(0, cell, ones)
        self._sums["active"].index_add_(0, cell, row_starts.diff().double())
        for n in self._written:
            x_BD = seen.x[n].double()
            error_B = (x_BD - seen.x_hat[n]).square().sum(dim=1)
            self._sums[f"error.{n}"].index_add_(0, cell, error_B)
            self._sums[f"squares.{n}"].index_add_(0, cell, x_BD.square().sum(dim=1))
            self._sums[f"total.{n}"].index_add_(0, cell, x_BD)

    def state(self) -> dict[str, Tensor]:
        """All sums."""
        return self._sums

    def absorb(self, state: dict[str, Tensor]) -> None:
        """Adds sums over other rows."""
        for name, value in self._sums.items():
            value += state[name].to(value.device)

    def rows(self, held_out: bool = True, label: str | None = None) -> int:
        """Rows of held-out documents, or of all; of one label, or of all."""
        return int(self._sums["rows"][self._cells(held_out, label)].sum())

    def l0(self, held_out: bool = True, label: str | None = None) -> float | None:
        """Mean active features per row; None where there are no rows."""
        cells, rows = self._cells(held_out, label), self.rows(held_out, label)
        return float(self._sums["active"][cells].sum()) / rows if rows else None

    def fve(self, held_out: bool = True, label: str | None = None) -> dict[str, float | None]:
        """FVE by hookpoint; None where there are no rows or no variance.

        Raises DictionaryError if activations or reconstructions were not finite.
        """
        cells, rows = self._cells(held_out, label), self.rows(held_out, label)
        return {
            hookpoint.name: fve(
                hookpoint.name,
                float(self._sums[f"error.{n}"][cells].sum()),
                float(self._sums[f"squares.{n}"][cells].sum()),
                self._sums[f"total.{n}"][cells].sum(dim=0),
                rows,
            )
            for n, hookpoint in self._written.items()
        }

    def _cells(self, held_out: bool, label: str | None) -> Tensor:
        count = len(self._labels)
        wanted = range(count) if label is None else [self._labels.index(label)]
        starts = (count,) if held_out else (0, count)
        return torch.tensor([start + n for start in starts for n in wanted])
