"""One step of every recipe against the plain reference, in float64."""

import pytest
import torch
from torch import Tensor

from train.trainee import Trainee

from .recipe_reference import Reference
from .trainees import (
    CASES,
    DEAD,
    ROWS,
    K,
    assert_same,
    batch_of,
    build,
    kill,
    reference_of,
    widened,
)


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
