"""What a model's best linear map from another model does not say of it: the noise of its copy.

x_W ~ M y_V + c, x_W all of the base's hookpoints one behind the other and y_V all of the other's,
as a feature's activation is read from all hookpoints of a model, too (`analyze.transfer`).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from analyze.null.pair import base_pairs
from analyze.statistics.moments import Moments
from analyze.subject import Subject
from train.linear_map import Spread, ridge_map


def unpredicted(subject: Subject, moments: Moments) -> Float[Tensor, "bases bases"]:
    """Covariance (raw units, float64) of what the other model does not predict of the base.

    The base's hookpoints lie in the order of `base_pairs`. From held-out rows where there are some,
    else from those that the map was fitted on. Raises StoreError as `ridge_map` does.
    """
    dictionary, slices = subject.dictionary, moments.slices
    pairs = base_pairs(dictionary)
    own = [slices[pair.own] for pair in pairs]
    index_W, index_V = _index(own), _index([slices[pair.other] for pair in pairs])
    order = torch.cat([index_W, index_V])
    training, held_out = (_ordered(s, order) for s in (moments.training(), moments.held_out()))
    judged = held_out if held_out.rows else training
    bases, others = slice(0, len(index_W)), slice(len(index_W), len(order))
    error_WW = ridge_map(training, judged, others, bases).error_TT.cpu()
    scale_W = torch.cat(
        [
            (dictionary.scale[pair.own] * dictionary.norm_scale[pair.own]).expand(s.stop - s.start)
            for pair, s in zip(pairs, own, strict=True)
        ]
    ).cpu()
    return error_WW / torch.outer(scale_W, scale_W)


def _index(places: list[slice]) -> Tensor:
    return torch.cat([torch.arange(place.start, place.stop) for place in places])


def _ordered(spread: Spread, order: Tensor) -> Spread:
    order = order.to(spread.mean_W.device)
    return Spread(spread.rows, spread.mean_W[order], spread.covariance_WW[order][:, order])
