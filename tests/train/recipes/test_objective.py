"""Loss, gradient and one step of every recipe against the plain reference, in float64."""

from typing import get_args

import pytest
import torch
from torch import Tensor

from store.schema import Hookpoint
from train.config import RecipeName, TrainConfig
from train.dictionary import activated
from train.dictionary.crosscoder import Crosscoder
from train.recipes.objective import Scheduled
from train.recipes.presets import planned
from train.recipes.recipe import activation_of, partition_of, shapes_of
from train.recipes.tied import tie_gradients, tie_rows
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
TWO_PATHS = ("relu", "gated", "jump_relu")


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


def paths() -> list[tuple[str, float]]:
    """Both forms of codes where there are two: DENSE_SHARE 1 is sparse, 0 dense."""
    found = []
    for name, (_, keys) in CASES.items():
        (plan,) = planned(TrainConfig(recipes=[keys]))
        two = plan.config.activation in TWO_PATHS
        found += [(name, 1.0), (name, 0.0)] if two else [(name, 1.0)]
    return found


def test_every_recipe_is_among_the_cases():
    assert {keys["recipe"] for _, keys in CASES.values()} == set(get_args(RecipeName))


@pytest.mark.parametrize(("name", "share"), paths())
def test_loss_and_gradient_are_those_of_the_formulas(monkeypatch, name, share):
    monkeypatch.setattr(activated, "DENSE_SHARE", share)
    trainee = build(name)
    kill(trainee, DEAD)
    reference = reference_of(trainee, DEAD)
    raw, x = batch_of(trainee)
    p = 0.5 if trainee.config.sparsity == "lp" else 1.0
    result = trainee.loss(trainee.dictionary.scaled(raw), Scheduled(K, WEIGHT, p))
    result.total.backward()
    tied = trainee.dictionary.tied_rows()
    if tied is not None:
        tie_gradients(list(trainee.dictionary.W_dec.values()), tied)
    terms = reference.terms(x, K, p)
    assert_same(result.terms, terms)
    total = reference.total(terms, WEIGHT)
    assert_same({"total": result.total}, {"total": total})
    wanted = reference.gradients(total)
    assert all(grad.abs().max() > 1e-4 for grad in wanted.values())
    assert_same(gradients(trainee), wanted)


def stepped(
    reference: Reference, x: list[Tensor], moments: dict[str, list[Tensor]], t: int, lr: float
) -> dict[str, Tensor]:
    """Weights after Adam's update number t, from its moments before it, with p 1 and K."""
    config = reference.config
    grads = reference.gradients(reference.total(reference.terms(x, K), config.sparsity_weight))
    norm = sum(g.pow(2).sum() for g in grads.values()).sqrt()
    found = {}
    for name, leaf in reference.weights.items():
        W, g = leaf.detach(), grads[name] * min(1.0, config.gradient_clip / (float(norm) + 1e-6))
        unit = config.unit_norm_decoder and name.startswith("W_dec")
        if unit:
            g = g - (g * W).sum(1, keepdim=True) * W / W.pow(2).sum(1, keepdim=True)
        m, v = moments.get(name, [torch.zeros_like(W)] * 2)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        W = W - lr * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
        found[name] = W / W.pow(2).sum(1, keepdim=True).sqrt() if unit else W
    return found


def moments_of(trainee: Trainee) -> dict[str, list[Tensor]]:
    """Adam's two moments of every parameter, full width."""
    named = dict(trainee.dictionary.named_parameters())
    state = trainee.optimizer.state
    first, second = (
        widened(trainee, {name: state[p][key] for name, p in named.items()})
        for key in ("exp_avg", "exp_avg_sq")
    )
    return {name: [first[name], second[name]] for name in named}


def parameters(trainee: Trainee) -> dict[str, Tensor]:
    return widened(trainee, dict(trainee.dictionary.named_parameters()))


@pytest.mark.parametrize("name", CASES)
def test_a_step_is_adams_on_the_clipped_and_projected_gradient(name):
    trainee = build(name)
    kill(trainee, DEAD)
    raw, x = batch_of(trainee)
    wanted = stepped(reference_of(trainee, DEAD), x, {}, t=1, lr=0.01 / 4)
    metrics = trainee.step(raw, 0)
    assert metrics.gradient_norm > trainee.config.gradient_clip
    assert_same(parameters(trainee), wanted)


def test_unit_norm_decoders_keep_norm_1_and_others_do_not():
    for name, unit in {"standard": True, "gated": True, "crosscoder": False}.items():
        trainee = build(name)
        for step in range(3):
            trainee.step(batch_of(trainee, step)[0], step)
        norms = trainee.dictionary.W_dec["0"].detach().norm(dim=1)
        assert bool((norms - 1).abs().max() < 1e-12) == unit


def redirected(reference: Reference, x: list[Tensor], row: int, j: int) -> None:
    """Feature j points to a row, as neuron resampling has it."""
    w = reference.weights
    others = [f for f in range(reference.features) if f != j]
    with torch.no_grad():
        for h in reference.outputs:
            u = x[h][row] - w[f"b_dec.{h}"]
            u = u / u.pow(2).sum().sqrt()
            for side, share in (("W_enc", 0.2), ("W_dec", 1.0)):
                W = w[f"{side}.{h}"]
                W[j] = share * W[others].pow(2).sum(1).sqrt().mean() * u
        w["b_enc"][j] = 0


@pytest.mark.parametrize("name", ["standard", "crosscoder", "batch_topk_crosscoder"])
def test_a_step_with_resampling_starts_from_the_worst_row_with_fresh_moments(name):
    trainee, row = build(name, resample_every=5), 11
    for step in range(5):
        trainee.step(batch_of(trainee, step)[0], step)
    trainee.rows_since_fired[:] = 0
    trainee.rows_since_fired[[3, 4]] = torch.tensor([5 * ROWS // 2, 5 * ROWS // 2 - 1])
    raw, x = batch_of(trainee, 5)
    for value in (*raw.values(), *x):  # so large a loss that no other row can be drawn
        value[row] *= 1e4
    reference, moments = reference_of(trainee), moments_of(trainee)
    redirected(reference, x, row, 3)
    for both in moments.values():
        for moment in both:
            if len(moment) == reference.features:
                moment[3] = 0
    wanted = stepped(reference, x, moments, t=6, lr=0.01 / 4)
    trainee.step(raw, 5)
    assert_same(parameters(trainee), wanted)


@pytest.mark.parametrize("name", ["p_anneal", "gated_anneal"])
def test_p_annealing_keeps_the_penaltys_size_when_p_changes(name):
    trainee = build(name, steps=25, p_anneal_start=8, p_updates=2, sparsity_weight=0.3)
    weight, recent = 0.3, []
    for step in range(25):
        p, following = [(1.0, 0.6), (0.6, 0.2), (0.2, None)][(step >= 16) + (step >= 24)]
        if step in (16, 24):
            old, new = zip(*recent[-10:], strict=True)
            weight *= sum(old) / sum(new)
            recent = []
        reference = reference_of(trainee)
        raw, x = batch_of(trainee, step)
        terms = reference.terms(x, K, p)
        if following is not None:
            penalised = reference.codes(reference.preactivations(x), K)[1]
            after = reference.penalty(penalised, following)
            recent.append((float(terms["sparsity"].detach()), float(after.detach())))
        metrics = trainee.step(raw, step)
        wanted = reference.total(terms, weight)
        assert_same({"total": metrics.loss}, {"total": wanted})
    assert weight != pytest.approx(0.3, rel=0.05)


def tensors_of(trainee: Trainee) -> dict[str, Tensor]:
    """Copies of everything that a step may change, but the count of bad batches."""
    found = {**trainee.dictionary.state_dict(), "dead": trainee.dead}
    found["rows_since_fired"] = trainee.rows_since_fired
    for name, parameter in trainee.dictionary.named_parameters():
        for key, value in trainee.optimizer.state.get(parameter, {}).items():
            found[f"{name}.{key}"] = value
    if trainee.annealed is not None:
        found["weight"] = trainee.annealed.weight
    return {name: value.clone() for name, value in found.items()}


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    "name",
    [
        *("standard", "p_anneal", "gated", "topk", "batch_topk_crosscoder", "decoupled", "dsf"),
        *("jump_relu dfc", "matryoshka dfc", "transcoder", "standard, ghost"),
    ],
)
@pytest.mark.parametrize("resample_every", [None, 4])
def test_a_bad_batch_changes_nothing_but_the_count_of_bad_batches(name, bad, resample_every):
    trainee = build(name, threshold_start=2, resample_every=resample_every, p_anneal_start=13)
    kill(trainee, DEAD)
    for step in range(12):
        trainee.step(batch_of(trainee, step)[0], step)
    trainee.rows_since_fired[DEAD] = 1000
    before = tensors_of(trainee)
    raw, _ = batch_of(trainee, 12)
    raw[list(raw)[-1]][3, 1] = bad
    metrics = trainee.step(raw, 12)
    assert not metrics.loss.isfinite()
    assert trainee.bad_batches == 1
    after = tensors_of(trainee)
    assert [name for name in before if not torch.equal(after[name], before[name])] == []
    good = batch_of(trainee, 13)[0]
    trainee.step(good, 13)
    assert trainee.bad_batches == 1
    for key, value in tensors_of(trainee).items():
        assert value.isfinite().all()
        assert key in ("dead", "scale", "norm_scale", "weight") or not torch.equal(
            value, before[key]
        )
