"""The features of a dictionary that point most nearly the way of some of them, model by model.

Cosine of decoders in scaled units, over all hookpoints of the model that are reconstructed, as of
one vector. Exact. Costs 2 C V D FLOPs and memory for COSINES_AT_ONCE cosines.
C chosen features, V features that the model sees, D width, K kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor

from analyze.norms import model_pair
from train.dictionary.crosscoder import Crosscoder

COSINES_AT_ONCE = 1 << 25  # of float32: 128 MiB
KEPT = 5


@dataclass(frozen=True)
class Nearest:
    """Per chosen feature those nearest to it, nearest first; cosine NaN where there are fewer."""

    neighbours: Int[Tensor, "chosen kept"]
    cosines: Float[Tensor, "chosen kept"]


def neighbours_table(
    dictionary: Crosscoder,
    features: Int64[np.ndarray, " chosen"],
    alive: Bool[np.ndarray, " features"],
    count: int = KEPT,
) -> pl.DataFrame:
    """Lines of feature, model, rank (from 1), neighbour, cosine; among features that are alive.

    A feature has none at a model that does not see it.
    """
    parts = [
        _of_model(dictionary, model, features, alive, count) for model in model_pair(dictionary)
    ]
    return pl.concat(parts).drop_nans("cosine")


def _of_model(
    dictionary: Crosscoder, model: str, features: np.ndarray, alive: np.ndarray, count: int
) -> pl.DataFrame:
    numbers = [n for n in dictionary.outputs if dictionary.hookpoints[n].model == model]
    found = nearest(dictionary, numbers, torch.from_numpy(features), torch.from_numpy(alive), count)
    kept = found.neighbours.shape[1]
    return pl.DataFrame(
        {
            "feature": np.repeat(features, kept),
            "model": pl.repeat(model, len(features) * kept, eager=True, dtype=pl.String),
            "rank": np.tile(np.arange(1, kept + 1), len(features)),
            "neighbour": found.neighbours.flatten().cpu().numpy(),
            "cosine": found.cosines.flatten().cpu().double().numpy(),
        }
    )


@torch.no_grad()
def nearest(
    dictionary: Crosscoder,
    numbers: list[int],
    features: Int[Tensor, " chosen"],
    among: Bool[Tensor, " features"],
    count: int,
) -> Nearest:
    """The `count` features nearest to each, without itself, over these hookpoints of one model.

    A feature that the hookpoints do not see, or that has no norm there, has none and is none.
    """
    device = dictionary.b_enc.device
    features, among = features.to(device), among.to(device)
    sees = dictionary.visibility(numbers[0]) if numbers else None  # as all hookpoints of a model
    if sees is None or not len(sees.features_V):
        return Nearest(features.new_zeros(len(features), 0), torch.zeros(len(features), 0))
    norms_V = _norms(dictionary, numbers)
    usable_V = among[sees.features_V] & (norms_V > 0)
    count = min(count, len(norms_V) - 1)
    neighbours, cosines = [], []
    for chosen_C in features.split(max(1, COSINES_AT_ONCE // len(norms_V))):
        local_C = sees.local_F[chosen_C]
        own_C = local_C.clamp(min=0)
        products_CV = torch.zeros(len(own_C), len(norms_V), device=device)
        for W_VD, scale in _decoders(dictionary, numbers):
            products_CV += (W_VD[own_C] * scale**2) @ W_VD.T
        cosines_CV = products_CV / norms_V[own_C, None] / norms_V
        cosines_CV = cosines_CV.masked_fill(~usable_V, -torch.inf)
        cosines_CV.scatter_(1, own_C[:, None], -torch.inf)
        values, places = cosines_CV.topk(count, dim=1)
        usable_C = (local_C >= 0) & (norms_V[own_C] > 0)
        none = ~usable_C[:, None] | (values == -torch.inf)
        neighbours.append(sees.features_V[places])
        cosines.append(values.masked_fill(none, torch.nan))
    return Nearest(torch.cat(neighbours), torch.cat(cosines))


def _decoders(dictionary: Crosscoder, numbers: list[int]) -> list[tuple[Tensor, Tensor]]:
    """Decoder (V, D) of each hookpoint, and what brings it into scaled units."""
    return [(dictionary.W_dec[str(n)].float(), dictionary.norm_scale[n].float()) for n in numbers]


def _norms(dictionary: Crosscoder, numbers: list[int]) -> Float[Tensor, " visible"]:
    squares = [
        (W_VD.norm(dim=1) * scale).square() for W_VD, scale in _decoders(dictionary, numbers)
    ]
    return torch.stack(squares).sum(dim=0).sqrt()
