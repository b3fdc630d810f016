"""How well a dictionary reconstructs rows, in inference mode, in one pass over them.

FVE = 1 - sum|x - x_hat|^2 / sum|x - mean(x)|^2 per hookpoint, in float64 sums, where the mean is
that of the rows seen; it does not depend on the hookpoint's scale. Evaluating changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from store.loader import Batch
from train.codes import SparseCodes
from train.crosscoder import Activations, Crosscoder


@dataclass(frozen=True)
class Evaluation:
    """FVE per hookpoint name, mean active features per row, and rows seen."""

    fve: dict[str, float]
    l0: float
    rows: int


class VarianceExplained:
    """Accumulates squared errors and variances of one hookpoint over batches, in float64."""

    def __init__(self) -> None:
        self._error = 0.0
        self._sum: Tensor | None = None
        self._squares = 0.0
        self._rows = 0

    def update(self, x_BD: Tensor, x_hat_BD: Tensor) -> None:
        """Takes one batch in and its reconstruction."""
        x = x_BD.to(x_hat_BD.device, torch.float64)
        self._error += float((x - x_hat_BD).square().sum())
        self._squares += float(x.square().sum())
        total = x.sum(dim=0)
        self._sum = total if self._sum is None else self._sum + total
        self._rows += len(x)

    @property
    def fve(self) -> float:
        """Fraction of variance explained over all rows taken in; 0 if there were none."""
        if self._sum is None:
            return 0.0
        variance = self._squares - float(self._sum.square().sum()) / self._rows
        return 1 - self._error / variance if variance > 0 else 0.0


def evaluate(dictionary: Crosscoder, batches: Iterable[Batch]) -> Evaluation:
    """FVE and L0 over `batches`."""
    accumulators = {hookpoint.name: VarianceExplained() for hookpoint in dictionary.hookpoints}
    active = rows = 0
    for batch in batches:
        codes, reconstructions = reconstruct(dictionary, batch.activations)
        for name, accumulator in accumulators.items():
            accumulator.update(batch.activations[name], reconstructions[name])
        active += len(codes.values)
        rows += len(batch.rows)
    fve = {name: accumulator.fve for name, accumulator in accumulators.items()}
    return Evaluation(fve, active / max(1, rows), rows)


def reconstruct(
    dictionary: Crosscoder, activations: Activations
) -> tuple[SparseCodes, Activations]:
    """Codes and reconstructions of raw activations."""
    codes = dictionary.encode(activations)
    return codes, dictionary.decode(codes)
