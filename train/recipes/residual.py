"""How a residual dictionary starts: the maps between the models, and the scale of what they leave.

Per pair of hookpoints one ridge map each way, in raw units and float64 (train.linear_map), fitted
on up to SAMPLE_ROWS training rows that are spread over all of them; every fifth batch of these
chooses the ridge's strength and says how much is predicted. Costs one pass over those rows with
2 W^2 FLOPs each, W the two widths together, and the memory of four W x W matrices.
"""

from __future__ import annotations

import math

import torch

from pipeline.errors import ConfigError, StoreError
from train.dictionary.crosscoder import Activations, Crosscoder
from train.dictionary.residual import LinearPrediction
from train.linear_map import SpreadSums, ridge_map
from train.recipes.initialize import norm_aimed_at
from train.source import RowSource

SAMPLE_ROWS = 262_144
HELD_OUT_EVERY = 5  # batches
NOTHING_LEFT = 1e-4  # of the activations' norm; bfloat16 rounds them by 2e-3


@torch.no_grad()
def initialize_prediction(
    dictionary: Crosscoder, source: RowSource, device: torch.device, rows: int = SAMPLE_ROWS
) -> None:
    """Fits the maps between each pair of hookpoints; sums are made on `device` if it is CUDA.

    Raises StoreError where rows are too few or not finite.
    """
    prediction = dictionary.prediction
    assert prediction is not None
    place = device if device.type == "cuda" else torch.device("cpu")
    names = [hookpoint.name for hookpoint in dictionary.hookpoints]
    widths = [hookpoint.width for hookpoint in dictionary.hookpoints]
    pairs = [(n, other) for n, other in enumerate(prediction.partners) if n < other]
    sums = {
        pair: [SpreadSums(widths[pair[0]] + widths[pair[1]], place) for _ in range(2)]
        for pair in pairs
    }
    for number, batch in enumerate(source.sample(rows)):
        held_out = number % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
        for pair, parts in sums.items():
            both = [batch.activations[names[n]].to(place, torch.float64) for n in pair]
            parts[held_out].add(torch.cat(both, dim=1))
    for pair, (fit, judge) in sums.items():
        if not bool(torch.isfinite(fit.gram_WW.diagonal() + judge.gram_WW.diagonal()).all()):
            raise StoreError(
                f"{source.name}: activations of {names[pair[0]]} or {names[pair[1]]} are not "
                "finite; look for the damage with `store verify`"
            )
        _fit(prediction, pair, widths[pair[0]], fit, judge)


def _fit(
    prediction: LinearPrediction,
    pair: tuple[int, int],
    edge: int,
    fit: SpreadSums,
    judge: SpreadSums,
) -> None:
    """Both maps of a pair, whose first hookpoint's coordinates end at `edge`."""
    first, second = pair
    places = {first: slice(0, edge), second: slice(edge, fit.width)}
    for own, other in (pair, (second, first)):
        found = ridge_map(fit.spread(), judge.spread(), places[other], places[own])
        prediction.get_buffer(f"weight_{own}").copy_(found.weight_TS)
        prediction.get_buffer(f"bias_{own}").copy_(found.bias_T)
        r2 = found.r2_fit if math.isnan(found.r2) else found.r2
        prediction.r2[own] = 0.0 if math.isnan(r2) else r2


@torch.no_grad()
def initialize_residual_scale(dictionary: Crosscoder, first_batch: Activations) -> None:
    """Makes the first batch's residuals of every hookpoint as long, in the median, as others' rows.

    Raises ConfigError where the other model predicts everything.
    """
    aim, targets = norm_aimed_at(dictionary), dictionary.targets(first_batch)
    for number, hookpoint in enumerate(dictionary.hookpoints):
        median = float(targets[hookpoint.name].norm(dim=1).median())
        before = float(first_batch[hookpoint.name].float().norm(dim=1).median())
        if not median > NOTHING_LEFT * before:
            raise ConfigError(
                f"train.residual: {hookpoint.name} is predicted by the other model to "
                f"{median:.1e} of its norm {before:.3g}: what is left is rounding, no difference "
                "between the models; use recipe dfc"
            )
        dictionary.scale[number] = aim / median
