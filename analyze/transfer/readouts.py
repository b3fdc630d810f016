"""How well each feature's activation can be read, linearly, from either model's activations.

The readout is the ridge regression of f on all hookpoints of a model, with intercept, on all rows:
with C the covariance of the activations and c their covariance with f, w = (C + lambda I)^-1 c and
R^2 = (2 <c, w> - <w, C w>) / var f. Adjusted for D predictors and N rows, as a feature that goes
with nothing would else have D / N: 1 - (1 - R^2) (N - 1) / (N - D - 1). A feature without linear
counterpart in the other model has a ratio readout_other / readout_own near 0.
One Cholesky factor per model, then 2 D^2 FLOPs per feature; a few thousand features at a time.
F features, D summed widths of a model's hookpoints.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from analyze.norms import model_pair
from analyze.pairing import claimed_for
from analyze.statistics.moments import Moments
from analyze.statistics.readout import Readout, Sums
from analyze.subject import Subject
from train.linear_map import RidgeFactor, Spread, coordinates, ridge_factor

READOUT_RIDGE = 1e-6  # just what rounding of the covariance asks for: rows are many
FEATURES_AT_ONCE = 4096
NO_VARIANCE = 1e-12  # share of the mean square of f below which a variance is rounding


@dataclass(frozen=True)
class Readouts:
    """Adjusted R^2 (F,), float64, from the model a feature is claimed for and from the other.

    NaN where a feature's activation does not vary, or where rows are no more than predictors.
    """

    own_F: Float[Tensor, " features"]
    other_F: Float[Tensor, " features"]

    @property
    def ratio_F(self) -> Float[Tensor, " features"]:
        """other / own; NaN where the own activations do not tell of the feature either."""
        return self.other_F / torch.where(self.own_F > 0, self.own_F, torch.nan)


def readouts(moments: Moments, readout: Readout, subject: Subject) -> Readouts:
    """Of every feature, from its own and the other model; both accumulators filled.

    Raises StoreError if activations were not finite.
    """
    dictionary, spread = subject.dictionary, moments.everything()
    first, second = model_pair(dictionary)
    found = {}
    for model in (first, second):
        places = [
            place
            for place, hookpoint in zip(moments.slices, dictionary.hookpoints, strict=True)
            if hookpoint.model == model
        ]
        found[model] = linear_readout(spread, readout, places)
    is_first_F = claimed_for(dictionary)[first]
    return Readouts(
        torch.where(is_first_F, found[first], found[second]),
        torch.where(is_first_F, found[second], found[first]),
    )


def linear_readout(
    spread: Spread, readout: Readout, places: list[slice], ridge: float = READOUT_RIDGE
) -> Float[Tensor, " features"]:
    """Adjusted R^2 of every feature's best linear readout from the coordinates at `places`.

    spread: of the rows that `readout` has seen; ridge: lambda over the mean eigenvalue of C.
    """
    index_D = coordinates(places).to(spread.mean_W.device)
    here = spread.at(index_D)
    solved, parts = ridge_factor(here.covariance_WW, ridge), []
    for start in range(0, readout.features, FEATURES_AT_ONCE):
        sums = readout.sums(slice(start, start + FEATURES_AT_ONCE), index_D)
        parts.append(_explained(sums, here.mean_W, solved))
    return _adjusted(torch.cat(parts), spread.rows, len(index_D))


def _explained(sums: Sums, mean_D: Tensor, solved: RidgeFactor) -> Tensor:
    """R^2 (F,) before adjustment; NaN where f does not vary."""
    rows = max(1, sums.rows)
    f_F, square_F = sums.sum_F / rows, sums.squares_F / rows
    variance_F = square_F - f_F.square()
    varies_F = variance_F > NO_VARIANCE * square_F
    c_FD = sums.products_FD / rows - torch.outer(f_F, mean_D)
    w_FD = solved.solve(c_FD.T).T
    # <w, C w> = <w, c> - lambda |w|^2, by what w solves.
    explained_F = (c_FD * w_FD).sum(dim=1) + solved.penalty * w_FD.square().sum(dim=1)
    return explained_F / torch.where(varies_F, variance_F, torch.nan)


def _adjusted(r2_F: Tensor, rows: int, predictors: int) -> Tensor:
    free = rows - predictors - 1
    if free <= 0:
        return torch.full_like(r2_F, torch.nan)
    return 1 - (1 - r2_F) * (rows - 1) / free
