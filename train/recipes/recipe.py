"""What each recipe's name means: which partition, on which hookpoints, how it starts."""

from __future__ import annotations

from pathlib import Path

import torch

from train.config import RecipeName, TrainConfig
from train.dictionary.crosscoder import Activations, Crosscoder, HookpointShape
from train.dictionary.partition import Partition, dedicated, single_group
from train.recipes.initialize import initialize_bias, initialize_scale, initialize_weights
from train.source import RowSource
from train.trainee import Trainee


def partition_of(recipe: RecipeName, models: tuple[str, ...], config: TrainConfig) -> Partition:
    """dfc: exclusive groups around a shared one; batch_topk_crosscoder: one shared group."""
    if recipe == "dfc":
        return dedicated(models, config.features, config.exclusive)
    return single_group(models, config.features)


def build_trainee(
    recipe: RecipeName,
    source: RowSource,
    config: TrainConfig,
    first_batch: Activations | None,
    device: torch.device,
) -> Trainee:
    """A dictionary ready for its first step on these rows.

    Without its first batch it lacks scales and b_dec, which a checkpoint then restores.
    """
    models = tuple(dict.fromkeys(hookpoint.model for hookpoint in source.hookpoints))
    dictionary = Crosscoder(
        tuple(HookpointShape(h.name, h.model, h.width) for h in source.hookpoints),
        partition_of(recipe, models, config),
        config.code_normalization,
    )
    initialize_weights(dictionary, config.decoder_init_norm, config.seed)
    if first_batch is not None:
        initialize_scale(dictionary, source)
        initialize_bias(dictionary, first_batch)
    return Trainee(recipe, dictionary.to(device), config)


def output_folder(main_folder: Path, number: int, recipe: RecipeName) -> Path:
    """The first recipe's dictionary lies in the main folder, each further one beside it."""
    return main_folder if number == 0 else main_folder.with_name(f"{main_folder.name}-{recipe}")
