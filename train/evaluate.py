"""How well a dictionary reconstructs rows, in inference mode, in one pass over them.

FVE = 1 - sum|x - x_hat|^2 / sum|x - mean(x)|^2 per hookpoint, in float64 sums, where the mean is
that of the rows seen; it does not depend on the hookpoint's scale. Where there are no rows, or rows
that do not vary, there is no FVE: None. Evaluating changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.errors import DictionaryError
from store.loader import Batch
from train.dictionary.codes import SparseCodes
from train.dictionary.crosscoder import Activations, Crosscoder

NO_VARIANCE = 1e-12  # share of the sum of squares below which a variance is rounding


@dataclass(frozen=True)
class Evaluation:
    """FVE per hookpoint name, mean active features per row, and rows seen; None without rows."""

    fve: dict[str, float | None]
    l0: float | None
    rows: int


class VarianceExplained:
    """Accumulates squared errors and variances of one hookpoint over batches, in float64.

    `hookpoint` is its name in errors.
    """

    def __init__(self, hookpoint: str = "a hookpoint") -> None:
        self._hookpoint = hookpoint
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
    def fve(self) -> float | None:
        """Fraction of variance explained over all rows taken in; None if there is no variance.

        Raises DictionaryError if activations or reconstructions were not finite.
        """
        if self._sum is None or not self._rows:
            return None
        if not math.isfinite(self._squares):
            raise DictionaryError(
                f"{self._hookpoint}: activations in the store are not finite; "
                "look for the damage with `store verify`"
            )
        if not math.isfinite(self._error):
            raise DictionaryError(
                f"{self._hookpoint}: reconstructions are not finite; check the store with "
                "`store verify`, then lower train.lr and train anew"
            )
        variance = self._squares - float(self._sum.square().sum()) / self._rows
        return 1 - self._error / variance if variance > NO_VARIANCE * self._squares else None


def evaluate(dictionary: Crosscoder, batches: Iterable[Batch]) -> Evaluation:
    """FVE and L0 over `batches`."""
    accumulators = {h.name: VarianceExplained(h.name) for h in dictionary.hookpoints}
    active = rows = 0
    for batch in batches:
        codes, reconstructions = reconstruct(dictionary, batch.activations)
        for name, accumulator in accumulators.items():
            accumulator.update(batch.activations[name], reconstructions[name])
        active += len(codes.values)
        rows += len(batch.rows)
    fve = {name: accumulator.fve for name, accumulator in accumulators.items()}
    return Evaluation(fve, active / rows if rows else None, rows)


def reconstruct(
    dictionary: Crosscoder, activations: Activations
) -> tuple[SparseCodes, Activations]:
    """Codes and reconstructions of raw activations."""
    codes = dictionary.encode(activations)
    return codes, dictionary.decode(codes)
