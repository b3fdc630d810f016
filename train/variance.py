"""How much of the variance of rows a reconstruction explains, in one pass over them.

FVE = 1 - sum|x - x_hat|^2 / sum|x - mean(x)|^2 in float64 sums, where the mean is that of the rows
seen; it does not depend on the rows' scale. Where there are no rows, or rows that do not vary,
there is no FVE: None.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pipeline.errors import DictionaryError

NO_VARIANCE = 1e-12  # share of the sum of squares below which a variance is rounding


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
    def squared_error(self) -> float:
        """Sum of squared errors over all rows taken in, in the rows' own units."""
        return self._error

    @property
    def fve(self) -> float | None:
        """Fraction of variance explained over all rows taken in; None if there is no variance.

        Raises DictionaryError if activations or reconstructions were not finite.
        """
        if self._sum is None:
            return None
        return fve(self._hookpoint, self._error, self._squares, self._sum, self._rows)

    @property
    def variance(self) -> float | None:
        """Sum of squared distances from the rows' mean; None if it is nothing but rounding."""
        return None if self._sum is None else variance(self._squares, self._sum, self._rows)


def fve(hookpoint: str, error: float, squares: float, total_D: Tensor, rows: int) -> float | None:
    """Fraction of variance explained; None if there is no variance.

    error: summed squared error; squares, total_D: sums of |x|^2 and of x over the rows. Raises
    DictionaryError if activations or reconstructions were not finite; `hookpoint` is named in it.
    """
    if not rows:
        return None
    if not math.isfinite(squares):
        raise DictionaryError(
            f"{hookpoint}: activations in the store are not finite; "
            "look for the damage with `store verify`"
        )
    if not math.isfinite(error):
        raise DictionaryError(
            f"{hookpoint}: reconstructions are not finite; check the store with "
            "`store verify`, then lower train.lr and train anew"
        )
    whole = variance(squares, total_D, rows)
    return None if whole is None else 1 - error / whole


def variance(squares: float, total_D: Tensor, rows: int) -> float | None:
    """Sum of squared distances from the rows' mean; None if it is nothing but rounding."""
    if not rows:
        return None
    found = squares - float(total_D.square().sum()) / rows
    return found if found > NO_VARIANCE * squares else None
