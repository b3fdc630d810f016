"""From a planned dictionary and the rows to a dictionary that is ready for its first step."""

from __future__ import annotations

from pathlib import Path

import torch

from pipeline.errors import ConfigError
from store.schema import Hookpoint
from train.config import TrainConfig
from train.dictionary.activation import Activation, BatchTopK, Gated, JumpReLU, ReLU, TopK
from train.dictionary.crosscoder import Activations, Crosscoder, HookpointShape
from train.dictionary.pairs import refuse_unpaired
from train.dictionary.partition import (
    Partition,
    dedicated,
    designated_group,
    refuse_unknown_models,
    single_group,
)
from train.ranks import ALONE, Ranks
from train.recipes.initialize import (
    initialize_bias,
    initialize_scale,
    initialize_sizes,
    initialize_weights,
)
from train.recipes.presets import Planned
from train.recipes.residual import initialize_prediction, initialize_residual_scale
from train.recipes.tied import check_equal_widths, tie_rows
from train.recipes.units import in_units
from train.source import RowSource
from train.trainee import Trainee


def shapes_of(hookpoints: tuple[Hookpoint, ...], config: TrainConfig) -> list[HookpointShape]:
    """The hookpoints that take part, and what each does. Raises ConfigError."""
    kept = _chosen(hookpoints, config.hookpoints, "hookpoints")
    reads = _chosen(kept, config.encoder_hookpoints, "encoder_hookpoints")
    writes = _chosen(kept, config.decoder_hookpoints, "decoder_hookpoints")
    return [
        HookpointShape(h.name, h.model, h.width, h in reads, h in writes)
        for h in kept
        if h in reads or h in writes
    ]


def _chosen(
    hookpoints: tuple[Hookpoint, ...], names: list[str] | None, key: str
) -> tuple[Hookpoint, ...]:
    """Those that are named, by their own name or their model's."""
    known = {name for h in hookpoints for name in (h.name, h.model)}
    for name in names or ():
        if name not in known:
            raise ConfigError(
                f"train.{key}: {name!r} is not among {', '.join(h.name for h in hookpoints)}"
            )
    return tuple(h for h in hookpoints if names is None or h.name in names or h.model in names)


def partition_of(plan: Planned, models: tuple[str, ...]) -> Partition:
    """Exclusive groups around a shared one, or one shared group, part of which is designated."""
    config, exclusive = plan.config, plan.config.exclusive
    if plan.recipe == "residual_dfc" and not exclusive:  # nothing linear is left to share
        exclusive = {m: (config.features + n) // len(models) for n, m in enumerate(models)}
    if plan.partition == "dedicated":
        return dedicated(models, config.features, exclusive)
    if config.designated:
        return designated_group(models, config.features, config.designated)
    return single_group(models, config.features)


def activation_of(config: TrainConfig) -> Activation:
    """The activation function that a resolved configuration names."""
    match config.activation:
        case "relu":
            return ReLU()
        case "topk":
            return TopK(config.k)
        case "jump_relu":
            assert config.bandwidth is not None
            return JumpReLU(config.bandwidth)
        case "gated":
            return Gated()
    if config.designated:
        own = config.designated * config.designated_k
        return BatchTopK((own, 1 - own))
    return BatchTopK()


def build_dictionary(
    plan: Planned, hookpoints: tuple[Hookpoint, ...]
) -> tuple[Crosscoder, TrainConfig]:
    """A planned dictionary for such rows, not initialized; its configuration in their units.

    Raises ConfigError.
    """
    shapes = shapes_of(hookpoints, plan.config)
    written = sum(shape.writes for shape in shapes)
    config = in_units(plan.config, [shape.width for shape in shapes], written)
    models = tuple(dict.fromkeys(shape.model for shape in shapes))
    refuse_unknown_models("train.model_weights", config.model_weights, models)
    if config.residual:
        refuse_unpaired([shape.model for shape in shapes])
    assert config.code_normalization is not None
    dictionary = Crosscoder(
        tuple(shapes),
        partition_of(plan, models),
        config.code_normalization,
        activation=activation_of(config),
        center=bool(config.center),
        residual=bool(config.residual),
    )
    return dictionary, config


def build_trainee(
    plan: Planned,
    source: RowSource,
    first_batch: Activations | None,
    device: torch.device,
    ranks: Ranks = ALONE,
) -> Trainee:
    """A dictionary ready for its first step on these rows.

    The first batch is the global one, on every rank. Without it the dictionary lacks scales, b_dec
    and a residual's maps, which a checkpoint then restores. Raises ConfigError and StoreError.
    """
    dictionary, config = build_dictionary(plan, source.hookpoints)
    shapes = dictionary.hookpoints
    initialize_weights(dictionary, config)
    tied = dictionary.tied_rows()
    if tied is not None:
        check_equal_widths({shape.name: shape.width for shape in shapes if shape.writes})
        tie_rows(list(dictionary.W_dec.values()), tied)
    if first_batch is not None:
        if dictionary.prediction is None:
            initialize_scale(dictionary, source)
        else:
            initialize_prediction(dictionary, source, device)
            initialize_residual_scale(dictionary, first_batch)
        initialize_bias(dictionary, first_batch)
        initialize_sizes(dictionary, first_batch, config)
    return Trainee(plan.name, dictionary.to(device), config, ranks)


def output_folder(main_folder: Path, number: int, name: str) -> Path:
    """The first dictionary lies in the main folder, each further one beside it."""
    return main_folder if number == 0 else main_folder.with_name(f"{main_folder.name}-{name}")
