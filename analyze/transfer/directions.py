"""What becomes of a feature's own decoder direction in the other model, by maps there and back.

With d the decoder at the own hookpoint in scaled units, M_there the map from the own to the other
hookpoint and M_back the reverse: mapped norm |M_there d| / |d|, what of the direction survives
there and back <d, M_back M_there d> / |d|^2, and the R^2, on held-out rows, of the projection
<d, x_own> predicted from the other model's activations. F features, S and T widths, D the own one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from analyze.pairing import HookpointPair
from analyze.statistics.moments import Moments
from train.dictionary.crosscoder import Crosscoder
from train.linear_map import RidgeMap, ridge_map

FEATURES_AT_ONCE = 4096


@dataclass(frozen=True)
class Maps:
    """Between a pair's hookpoints: from the own to the other one, and back."""

    pair: HookpointPair
    there: RidgeMap
    back: RidgeMap

    def reversed(self) -> Maps:
        """The same, seen from the other model."""
        return Maps(self.pair.reversed(), self.back, self.there)


@dataclass(frozen=True)
class Directions:
    """Per feature (F,), float64; NaN where the own hookpoint has no decoder of it.

    r2: NaN, too, where there are no held-out rows or the projection does not vary on them.
    """

    mapped_norm: Tensor
    round_trip: Tensor
    r2: Tensor


def fit_maps(moments: Moments, pair: HookpointPair) -> Maps:
    """The maps of a pair, both ways; raises StoreError if rows are too few or not finite."""
    training, held_out = moments.training(), moments.held_out()
    own, other = moments.slices[pair.own], moments.slices[pair.other]
    return Maps(
        pair,
        ridge_map(training, held_out, own, other),
        ridge_map(training, held_out, other, own),
    )


def directions(
    dictionary: Crosscoder, maps: Maps, features_F: Int[Tensor, " features"]
) -> Directions:
    """Of these features, as far as the pair's own hookpoint sees them."""
    parts = [
        _directions(own_decoder(dictionary, maps.pair.own, some_F), maps)
        for some_F in features_F.split(FEATURES_AT_ONCE)
    ]
    return Directions(
        torch.cat([part.mapped_norm for part in parts]),
        torch.cat([part.round_trip for part in parts]),
        torch.cat([part.r2 for part in parts]),
    )


def own_decoder(
    dictionary: Crosscoder, number: int, features_F: Int[Tensor, " features"]
) -> Float[Tensor, "features width"]:
    """Decoder rows of these features in scaled units, float64; zeros where it does not see one."""
    local_F = dictionary.visibility(number).local_F[features_F]
    d_FD = dictionary.W_dec[str(number)].detach()[local_F.clamp(min=0)].double()
    return d_FD * float(dictionary.norm_scale[number]) * (local_F >= 0)[:, None]


def _directions(d_FD: Tensor, maps: Maps) -> Directions:
    square_F = d_FD.square().sum(dim=1)
    square_F = torch.where(square_F > 0, square_F, torch.nan)
    mapped_FT = d_FD @ maps.there.weight_TS.T
    returned_FD = mapped_FT @ maps.back.weight_TS.T
    return Directions(
        mapped_FT.square().sum(dim=1).div(square_F).sqrt(),
        (d_FD * returned_FD).sum(dim=1) / square_F,
        maps.back.r2_along(d_FD),
    )
