"""A dictionary in windows form beside the dense reference with the same weights, in float64."""

from itertools import pairwise

import torch
from torch import Tensor

from train.config import TrainConfig
from train.dictionary.crosscoder import Crosscoder, HookpointShape
from train.dictionary.partition import FeatureGroup, Partition
from train.trainee import Trainee

from .dense_reference import DenseReference, Recipe

# name -> (models and widths of the hookpoints, groups in order)
PARTITIONS = {
    "dfc": (
        [("a", 5), ("b", 7)],
        [("a", ("a",), 6), ("shared", ("a", "b"), 14), ("b", ("b",), 4)],
    ),
    "single": ([("a", 5), ("b", 7)], [("shared", ("a", "b"), 24)]),
    "three models": (
        [("a", 5), ("b", 7), ("c", 4)],
        [
            ("a", ("a",), 4),
            ("shared", ("a", "b", "c"), 9),
            ("b", ("b",), 3),
            ("ac", ("a", "c"), 5),
            ("c", ("c",), 3),
        ],
    ),
    "nothing shared": ([("a", 5), ("b", 7)], [("a", ("a",), 14), ("b", ("b",), 10)]),
    "two hookpoints of one model": (
        [("a", 5), ("b", 7), ("a", 6)],
        [("a", ("a",), 6), ("shared", ("a", "b"), 14), ("b", ("b",), 4)],
    ),
}
NORMALIZATIONS = ["crosscoder", "per_model", "sae", "mixed", "none"]
FEATURES, ROWS = 24, 15


def make_config(**changes: object) -> TrainConfig:
    """Warm-up, decay and annealing all happen inside the first 20 steps."""
    settings: dict[str, object] = {
        "features": FEATURES,
        "batch_rows": ROWS,
        "k": 3,
        "k_start": 9,
        "k_anneal_steps": 12,
        "steps": 30,
        "lr": 0.01,
        "warmup_steps": 6,
        "decay_start": 14,
        "gradient_clip": 2.0,
        "dead_after_rows": 100,
        "threshold_start": 7,
        "threshold_beta": 0.8,
        "code_normalization": "crosscoder",
        "auxk_weight": 0.25,
        "auxk": 8,
    }
    return TrainConfig.model_validate({**settings, **changes})


def make_trainee(partition: str, config: TrainConfig, seed: int = 0) -> Trainee:
    """Random weights; encoder and decoder differ, and decoder norms differ between features."""
    hookpoints, groups = PARTITIONS[partition]
    shapes = tuple(
        HookpointShape(f"{model}{number}", model, width)
        for number, (model, width) in enumerate(hookpoints)
    )
    dictionary = Crosscoder(
        shapes,
        Partition(tuple(FeatureGroup(*group) for group in groups)),
        config.code_normalization,
        torch.float64,
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in dictionary.parameters():
            random = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(0.4 * random)
        dictionary.scale.copy_(torch.linspace(0.7, 1.3, len(shapes)))
    return Trainee("dfc", dictionary, config)


def make_dead(trainee: Trainee, reference: DenseReference, features: list[int]) -> None:
    """Counts these features as dead from the first step on."""
    trainee.rows_since_fired[features] = trainee.config.dead_after_rows
    reference.rows_since_fired[features] = trainee.config.dead_after_rows


def reference_of(trainee: Trainee) -> DenseReference:
    """The dense reference with the trainee's present weights."""
    dictionary = trainee.dictionary
    groups = [(g.name, g.models, g.size) for g in dictionary.partition.groups]
    models = [h.model for h in dictionary.hookpoints]
    return DenseReference(
        models,
        groups,
        dictionary.normalization,
        trainee.config.loss,
        [full_width(W, models[h], groups) for h, W in enumerate(dictionary.W_enc.values())],
        [full_width(W, models[h], groups) for h, W in enumerate(dictionary.W_dec.values())],
        dictionary.b_enc.detach(),
        [b.detach() for b in dictionary.b_dec.values()],
    )


def recipe_of(config: TrainConfig) -> Recipe:
    """The reference's own words for a configuration in which nothing is left to a default."""
    values = [config.lr, config.decay_start, config.k_start, config.auxk, config.threshold_start]
    assert None not in values
    return Recipe(
        lr=config.lr,
        warmup=config.warmup_steps,
        decay_start=config.decay_start,
        steps=config.steps,
        clip=config.gradient_clip,
        k=config.k,
        k_start=config.k_start,
        k_steps=config.k_anneal_steps,
        auxk=config.auxk,
        auxk_weight=config.auxk_weight,
        dead_after=config.dead_after_rows,
        threshold_start=config.threshold_start,
        threshold_beta=config.threshold_beta,
    )


def full_width(windows: Tensor, model: str, groups: list[tuple[str, tuple, int]]) -> Tensor:
    """(visible, width) -> (features, width) with zeros where the model sees nothing."""
    edges = [0]
    for _, _, size in groups:
        edges.append(edges[-1] + size)
    full = windows.new_zeros(edges[-1], windows.shape[1])
    taken = 0
    for (_, seers, size), (start, stop) in zip(groups, pairwise(edges), strict=True):
        if model in seers:
            full[start:stop] = windows.detach()[taken : taken + size]
            taken += size
    assert taken == len(windows)
    return full


def full_parameters(trainee: Trainee, gradients: bool = False) -> list[Tensor]:
    """Weights (or gradients) in the reference's order and shape."""
    dictionary = trainee.dictionary
    groups = [(g.name, g.models, g.size) for g in dictionary.partition.groups]

    def value(parameter: Tensor) -> Tensor:
        return parameter.grad if gradients else parameter.detach().clone()

    wide = [
        full_width(value(W), h.model, groups)
        for weights in (dictionary.W_enc.values(), dictionary.W_dec.values())
        for h, W in zip(dictionary.hookpoints, weights, strict=True)
    ]
    return [*wide, value(dictionary.b_enc), *(value(b) for b in dictionary.b_dec.values())]


def random_batch(trainee: Trainee, seed: int) -> dict[str, Tensor]:
    """Raw activations of ROWS rows in float64."""
    generator = torch.Generator().manual_seed(1000 + seed)
    return {
        h.name: torch.randn(ROWS, h.width, generator=generator, dtype=torch.float64)
        for h in trainee.dictionary.hookpoints
    }
