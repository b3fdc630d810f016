"""Affine maps from one run of coordinates to another, by ridge regression in closed form.

x_T ~ M x_S + c minimizes the mean squared error on the training rows plus lambda |M|^2: the normal
equations M (C_SS + lambda I) = C_TS of centred rows, by Cholesky in float64. lambda is a strength
times the mean eigenvalue of C_SS; of RIDGES that with the best R^2 on held-out rows is taken.
R^2 = 1 - mean |x_T - M x_S - c|^2 / mean |x_T - mean of x_T|^2, both over the held-out rows.
All of it from means and covariances (Spread): one pass over the rows, whatever is asked of them.
Cost per map: about 4 D^3 FLOPs for each of RIDGES. S, T widths of source and target, W summed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pipeline.errors import StoreError

RIDGES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
WITHOUT_HELD_OUT = 1e-4  # where nothing is held out to choose by


@dataclass(frozen=True)
class Spread:
    """How rows are spread: their number, mean, and covariance (divided by rows), in float64."""

    rows: int
    mean_W: Float[Tensor, " width"]
    covariance_WW: Float[Tensor, "width width"]

    @classmethod
    def of_sums(
        cls, rows: int, sum_W: Float[Tensor, " width"], gram_WW: Float[Tensor, "width width"]
    ) -> Spread:
        """From the rows' sum and the sum of their outer products; all zero where there are none."""
        mean_W = sum_W / max(1, rows)
        return cls(rows, mean_W, gram_WW / max(1, rows) - torch.outer(mean_W, mean_W))

    def at(self, index_D: Int[Tensor, " some"]) -> Spread:
        """Of these coordinates, in this order."""
        index_D = index_D.to(self.mean_W.device)
        return Spread(self.rows, self.mean_W[index_D], self.covariance_WW[index_D][:, index_D])


def coordinates(places: Sequence[slice]) -> Int[Tensor, " some"]:
    """The numbers of the coordinates at `places`, one place behind the other."""
    return torch.cat([torch.arange(place.start, place.stop) for place in places])


class SpreadSums:
    """Number, sum and sum of outer products of rows, added up in float64 batch by batch."""

    def __init__(self, width: int, device: torch.device) -> None:
        self.width = width
        self.rows = 0
        self.sum_W = torch.zeros(width, dtype=torch.float64, device=device)
        self.gram_WW = torch.zeros(width, width, dtype=torch.float64, device=device)

    def add(self, rows_BW: Float[Tensor, "batch width"]) -> None:
        """Takes rows in."""
        self.rows += len(rows_BW)
        self.sum_W += rows_BW.sum(dim=0)
        self.gram_WW.addmm_(rows_BW.T, rows_BW)

    def spread(self) -> Spread:
        """Of all rows so far."""
        return Spread.of_sums(self.rows, self.sum_W, self.gram_WW)


@dataclass(frozen=True)
class RidgeMap:
    """x_T ~ weight_TS x_S + bias_T, in float64 and relative to the moments' constants.

    ridge: the strength chosen; r2, r2_fit: of held-out and of training rows, NaN where there are
    none or where they do not vary. error_TT, covariance_TT: second moments of the held-out rows'
    errors and covariance of their x_T, from which the R^2 of any direction follows.
    """

    weight_TS: Float[Tensor, "target source"]
    bias_T: Float[Tensor, " target"]
    ridge: float
    rows: int
    held_out_rows: int
    r2: float
    r2_fit: float
    error_TT: Float[Tensor, "target target"]
    covariance_TT: Float[Tensor, "target target"]

    def r2_along(self, d_FT: Float[Tensor, "features target"]) -> Float[Tensor, " features"]:
        """R^2 of the projections <d, x_T> of held-out rows; NaN where these do not vary."""
        whole_F = _along(self.covariance_TT, d_FT)
        error_F = _along(self.error_TT, d_FT)
        return 1 - error_F / torch.where(whole_F > 0, whole_F, torch.nan)


def ridge_map(training: Spread, held_out: Spread, source: slice, target: slice) -> RidgeMap:
    """The map between two runs of coordinates, fitted on training rows, chosen by held-out ones.

    Raises StoreError if there are fewer than two training rows.
    """
    if training.rows < 2:
        raise StoreError(
            f"a map between models needs training rows, the store has {training.rows}; "
            "harvest more text, or train with a smaller train.validation_fraction"
        )
    C_WW = training.covariance_WW
    judged = held_out if held_out.rows else training
    best, best_error, chosen = None, math.inf, math.nan
    for ridge in RIDGES if held_out.rows else (WITHOUT_HELD_OUT,):
        solved = ridge_factor(C_WW[source, source], ridge)
        weight_TS = solved.solve(C_WW[source, target]).T
        error = float(_errors(judged, training, source, target, weight_TS).diagonal().sum())
        if best is None or error < best_error:
            best, best_error, chosen = weight_TS, error, solved.ridge
    assert best is not None
    return _finished(training, held_out, source, target, best, chosen)


@dataclass(frozen=True)
class RidgeFactor:
    """Cholesky factor of C + lambda I; penalty: lambda; ridge: lambda over C's mean eigenvalue."""

    factor_DD: Float[Tensor, "width width"]
    penalty: float
    ridge: float

    def solve(self, right_DM: Float[Tensor, "width many"]) -> Float[Tensor, "width many"]:
        """(C + lambda I)^-1 times this."""
        found_DM: Tensor = torch.cholesky_solve(right_DM, self.factor_DD)
        return found_DM


def ridge_factor(covariance_DD: Float[Tensor, "width width"], ridge: float) -> RidgeFactor:
    """Of this strength, or of as many times tenfold as rounding of the covariance asks for."""
    mean_eigenvalue = float(covariance_DD.diagonal().mean()) or 1.0
    while True:
        penalty = ridge * mean_eigenvalue
        strong_DD = covariance_DD.clone()
        strong_DD.diagonal().add_(penalty)
        factor_DD, failed = torch.linalg.cholesky_ex(strong_DD)
        if not int(failed):
            return RidgeFactor(factor_DD, penalty, ridge)
        ridge *= 10


def _errors(
    judged: Spread, training: Spread, source: slice, target: slice, weight_TS: Tensor
) -> Tensor:
    """Second moments of the errors (T, T) on the rows of `judged`."""
    C_WW, shift_W = judged.covariance_WW, judged.mean_W - training.mean_W
    explained_TT = weight_TS @ C_WW[source, target]
    offset_T = shift_W[target] - weight_TS @ shift_W[source]
    return (
        C_WW[target, target]
        - explained_TT
        - explained_TT.T
        + weight_TS @ C_WW[source, source] @ weight_TS.T
        + torch.outer(offset_T, offset_T)
    )


def _finished(
    training: Spread,
    held_out: Spread,
    source: slice,
    target: slice,
    weight_TS: Tensor,
    ridge: float,
) -> RidgeMap:
    mean_W = training.mean_W
    error_TT = _errors(held_out, training, source, target, weight_TS)
    fit_TT = _errors(training, training, source, target, weight_TS)
    whole_TT = held_out.covariance_WW[target, target]
    if not held_out.rows:
        error_TT = torch.full_like(error_TT, torch.nan)
        whole_TT = error_TT
    return RidgeMap(
        weight_TS,
        mean_W[target] - weight_TS @ mean_W[source],
        ridge,
        training.rows,
        held_out.rows,
        _r2(error_TT, whole_TT),
        _r2(fit_TT, training.covariance_WW[target, target]),
        error_TT,
        whole_TT,
    )


def _r2(error_TT: Tensor, whole_TT: Tensor) -> float:
    whole = float(whole_TT.diagonal().sum())
    return 1 - float(error_TT.diagonal().sum()) / whole if whole > 0 else math.nan


def _along(matrix_TT: Tensor, d_FT: Tensor) -> Tensor:
    return ((d_FT @ matrix_TT) * d_FT).sum(dim=1)
