"""Trainees of every recipe with random float64 weights, and the plain reference of each."""

import torch
from torch import Tensor

from store.schema import Hookpoint
from train.config import TrainConfig
from train.dictionary.crosscoder import Crosscoder
from train.recipes.presets import planned
from train.recipes.recipe import activation_of, partition_of, shapes_of
from train.recipes.tied import tie_rows
from train.trainee import Trainee

from ..pairs import full_width
from .recipe_reference import Reference

SAE, PAIR, EQUAL = {"a": 6}, {"a": 5, "b": 7}, {"a": 6, "b": 6}
THREE = {"a": 5, "b": 7, "c": 4}
ROWS, K, WEIGHT = 15, 3, 0.7
DEAD = [0, 1, 9, 10, 22]  # in every group of a DFC
CUT = {"exclusive": {"a": 0.25, "b": 0.2}}
CUT_THREE = {"exclusive": {"a": 0.25, "b": 0.2, "c": 0.15}}
JUMP = {"activation": "jump_relu", "bandwidth": 0.25}
GHOST = {"ghost_grads": True}

# name -> (models and widths, recipe and the keys that differ from its defaults)
CASES = {
    "standard": (SAE, {"recipe": "standard"}),
    "standard, l2": (SAE, {"recipe": "standard", "loss": "l2"}),
    "entropy": (SAE, {"recipe": "standard", "sparsity": "entropy"}),
    "standard, ghost": (SAE, {"recipe": "standard", **GHOST}),
    "crosscoder": (PAIR, {"recipe": "crosscoder"}),
    "crosscoder, centred": (PAIR, {"recipe": "crosscoder", "center": True}),
    "crosscoder, none": (PAIR, {"recipe": "crosscoder", "code_normalization": "none"}),
    "crosscoder, sae": (PAIR, {"recipe": "crosscoder", "code_normalization": "sae"}),
    "crosscoder, mixed": (PAIR, {"recipe": "crosscoder", "code_normalization": "mixed"}),
    "crosscoder, per_model": (PAIR, {"recipe": "crosscoder", "code_normalization": "per_model"}),
    "crosscoder, lp": (PAIR, {"recipe": "crosscoder", "sparsity": "lp"}),
    "crosscoder, entropy": (PAIR, {"recipe": "crosscoder", "sparsity": "entropy"}),
    "crosscoder, nested": (PAIR, {"recipe": "crosscoder", "matryoshka": [0.3, 1.0]}),
    "crosscoder, l2, weights": (
        PAIR,
        {"recipe": "crosscoder", "loss": "l2", "model_weights": {"b": 3.0}, **GHOST},
    ),
    "p_anneal": (SAE, {"recipe": "p_anneal"}),
    "gated": (SAE, {"recipe": "gated"}),
    "gated, pair": (PAIR, {"recipe": "crosscoder", "activation": "gated", "loss": "l2"}),
    "gated_anneal": (SAE, {"recipe": "gated_anneal"}),
    "gated dfc": (PAIR, {"recipe": "dfc", "activation": "gated", "model_weights": {"a": 2}, **CUT}),
    "topk": (SAE, {"recipe": "topk"}),
    "topk, pair": (PAIR, {"recipe": "batch_topk_crosscoder", "activation": "topk"}),
    "batch_topk": (SAE, {"recipe": "batch_topk"}),
    "batch_topk_crosscoder": (PAIR, {"recipe": "batch_topk_crosscoder"}),
    "decoupled": (PAIR, {"recipe": "batch_topk_crosscoder", "code_normalization": "decoupled"}),
    "decoupled, nested dfc": (
        PAIR,
        {"recipe": "dfc", "code_normalization": "decoupled", "matryoshka": [0.5, 1.0], **CUT},
    ),
    "jump_relu": (SAE, {"recipe": "jump_relu", "bandwidth": 0.25, "target_l0": 4}),
    "jump_relu, centred, l1": (
        SAE,
        {"recipe": "jump_relu", "bandwidth": 0.25, "center": True, "sparsity": "l1"},
    ),
    "jump_relu dfc": (PAIR, {"recipe": "dfc", **JUMP, **CUT, **GHOST}),
    "jump_relu, three models": (THREE, {"recipe": "dfc", **JUMP, **CUT_THREE}),
    "matryoshka": (SAE, {"recipe": "matryoshka"}),
    "matryoshka dfc": (PAIR, {"recipe": "dfc", "matryoshka": [0.2, 0.5, 1.0], **CUT, **GHOST}),
    "dsf": (EQUAL, {"recipe": "dsf", "designated": 0.25}),
    "dsf, nested": (EQUAL, {"recipe": "dsf", "designated": 0.25, "matryoshka": [0.4, 1.0]}),
    "dfc": (PAIR, {"recipe": "dfc", **CUT}),
    "residual_dfc": (PAIR, {"recipe": "residual_dfc", "exclusive": {"a": 0.5, "b": 0.5}}),
    "dfc, weights": (PAIR, {"recipe": "dfc", "model_weights": {"a": 0.3, "b": 2.0}, **CUT}),
    "dfc, three models": (THREE, {"recipe": "dfc", **CUT_THREE}),
    "transcoder": (
        PAIR,
        {"recipe": "batch_topk", "encoder_hookpoints": ["a"], "decoder_hookpoints": ["b"]},
    ),
    "one more is read than written": (
        PAIR,
        {"recipe": "crosscoder", "decoder_hookpoints": ["b"], "center": True, **GHOST},
    ),
}


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def build(name: str, **changes: object) -> Trainee:
    """Random weights of different decoder norms; some features are dead for the extra terms."""
    widths, keys = CASES[name]
    settings = {"features": 24, "k": K, "steps": 30, "lr": 0.01, "auxk": 8, "batch_rows": ROWS}
    settings |= {"warmup_steps": 4, "dead_after_rows": 10_000, "gradient_clip": 0.5}
    (plan,) = planned(TrainConfig.model_validate({**settings, "recipes": [keys], **changes}))
    config = plan.config
    hookpoints = tuple(Hookpoint(model, model, width) for model, width in widths.items())
    dictionary = Crosscoder(
        tuple(shapes_of(hookpoints, config)),
        partition_of(plan, tuple(widths)),
        config.code_normalization,
        torch.float64,
        activation=activation_of(config),
        center=config.center,
    )
    with torch.no_grad():
        for number, parameter in enumerate(dictionary.parameters()):
            parameter.copy_(0.4 * random(*parameter.shape, seed=number))
        if config.activation == "jump_relu":
            dictionary.threshold.abs_().add_(0.2)
        dictionary.scale.copy_(torch.linspace(0.7, 1.3, len(widths)))
        if config.unit_norm_decoder:
            for W in dictionary.W_dec.values():
                W.div_(W.norm(dim=1, keepdim=True))
        if config.designated:
            tie_rows(list(dictionary.W_dec.values()), dictionary.tied_rows())
    return Trainee(plan.name, dictionary, config)


def kill(trainee: Trainee, features: list[int]) -> None:
    trainee.rows_since_fired[features] = trainee.config.dead_after_rows
    trainee.dead[features] = True
    trainee.refresh_dead_features()


def widened(trainee: Trainee, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Full width, by parameter name."""
    shapes = trainee.dictionary.hookpoints
    groups = [(g.name, g.models, g.size) for g in trainee.dictionary.partition.groups]
    return {
        name: full_width(value, shapes[int(name.split(".")[1])].model, groups)
        if name.startswith("W_")
        else value.detach().clone()
        for name, value in tensors.items()
    }


def reference_of(trainee: Trainee, dead: list[int] | None = None) -> Reference:
    """The reference with the present weights."""
    dictionary = trainee.dictionary
    weights = widened(trainee, dict(dictionary.named_parameters()))
    return Reference(
        trainee.config,
        [(h.model, h.reads, h.writes) for h in dictionary.hookpoints],
        [(g.name, g.models, g.size) for g in dictionary.partition.groups],
        {name: value.requires_grad_() for name, value in weights.items()},
        dead or [],
    )


def batch_of(trainee: Trainee, seed: int = 0) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Raw activations, and what the reference is to see: in scaled units."""
    shapes = trainee.dictionary.hookpoints
    raw = {h.name: random(ROWS, h.width, seed=100 * seed + n) for n, h in enumerate(shapes, 50)}
    scales = trainee.dictionary.scale.tolist()
    return raw, [raw[h.name] * scale for h, scale in zip(shapes, scales, strict=True)]


def gradients(trainee: Trainee) -> dict[str, Tensor]:
    named = dict(trainee.dictionary.named_parameters())
    grads = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in named.items()}
    return widened(trainee, grads)


def assert_same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-11, msg=name)
