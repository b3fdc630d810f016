"""What a training run would take, from its configuration and assumptions: no store is looked at."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from store.schema import Hookpoint
from train.config import TrainConfig
from train.plan import ADAM_COPIES, checkpoints_kept
from train.recipes.presets import planned
from train.recipes.recipe import build_dictionary


@dataclass(frozen=True)
class AssumedTraining:
    """parameters of all dictionaries; bytes in float32; memory_bytes: of a process, weights,
    gradients and the optimizer's moments, without a step's activations; seconds: of the whole run.
    """

    rows: int
    rows_trained: int
    rows_per_second: float
    parameters: int
    weight_bytes: int
    memory_bytes: int
    checkpoint_bytes: int
    seconds: float


def assumed(config: TrainConfig, rows: int, widths: dict[str, int], rate: float) -> AssumedTraining:
    """`rate`: rows per second that all dictionaries of the run together are trained at.

    widths: by name of the model, each with one hookpoint. Raises ConfigError.
    """
    hookpoints = tuple(Hookpoint(name, name, width) for name, width in widths.items())
    parameters = 0
    for plan in planned(config):
        with torch.device("meta"):
            dictionary, _ = build_dictionary(plan, hookpoints)
        parameters += sum(one.numel() for one in dictionary.parameters())
    trained = config.steps * config.batch_rows
    return AssumedTraining(
        rows=rows,
        rows_trained=trained,
        rows_per_second=rate,
        parameters=parameters,
        weight_bytes=4 * parameters,
        memory_bytes=4 * parameters * (1 + ADAM_COPIES),
        checkpoint_bytes=4 * parameters * (1 + ADAM_COPIES * checkpoints_kept(config)),
        seconds=trained / rate,
    )
