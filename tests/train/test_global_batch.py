"""Slices of a batch on several ranks, in float64, against the whole batch on one."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from train.config import TrainConfig
from train.dictionary.crosscoder import Crosscoder, HookpointShape
from train.dictionary.selection import batch_topk, batch_topk_each
from train.global_batch import slice_of
from train.ranks import ALONE, Ranks
from train.recipes.presets import Planned, planned
from train.recipes.recipe import activation_of, partition_of
from train.recipes.tied import tie_rows
from train.step_metrics import StepMetrics
from train.trainee import Trainee

from .thread_ranks import on_ranks

ROWS = 12
OUTLIERS = {"outlier_norm": 1.3}
# recipe -> settings beside those of `plan`
CASES = {
    "dfc": {},
    "dfc, l2": {"loss": "l2", "model_weights": {"a": 2.0}},
    "dfc, decoupled": {"code_normalization": "decoupled"},
    "dfc, outliers": OUTLIERS,
    "dsf": {},
    "dsf, outliers": OUTLIERS,
    "batch_topk": {},
    "matryoshka": {"matryoshka": [0.25, 1.0]},
    "topk": {},
    "topk, outliers": OUTLIERS,
    "standard, ghost": {"ghost_grads": True},
    "standard, ghost, outliers": {"ghost_grads": True, **OUTLIERS},
    "standard, entropy": {"sparsity": "entropy"},
    "crosscoder": {},
    "gated": {},
    "jump_relu": {"bandwidth": 0.5, "threshold_init": 0.2, "target_l0": 9.0},
    "jump_relu, outliers": {
        "bandwidth": 0.5,
        "threshold_init": 0.2,
        "target_l0": 9.0,
        **OUTLIERS,
    },
    "p_anneal": {"p_anneal_start": 1, "p_updates": 2},
    "p_anneal, resample": {"p_anneal_start": 1, "p_updates": 2, "resample_every": 2, **OUTLIERS},
}
STEPS = 6


def shapes(case: str) -> tuple[HookpointShape, ...]:
    """Designated shared features need one width."""
    return (
        HookpointShape("a", "a", 5),
        HookpointShape("b", "b", 5 if case.startswith("dsf") else 7),
    )


def plan(case: str) -> Planned:
    settings: dict[str, object] = {
        "recipes": [case.split(",")[0]],
        "features": 24,
        "exclusive": {"a": 0.25, "b": 0.25},
        "batch_rows": ROWS,
        "k": 3,
        "k_anneal_steps": 0,
        "steps": STEPS,
        "lr": 0.01,
        "warmup_steps": 0,
        "gradient_clip": 20.0,
        "dead_after_rows": 4 * ROWS,
        "threshold_start": 2,
        "threshold_beta": 0.8,
        "auxk": 8,
        "sparsity_weight": 0.1,
        **CASES[case],
    }
    (found,) = planned(TrainConfig.model_validate(settings))
    return found


def trainee(case: str, ranks: Ranks) -> Trainee:
    """Random weights; four features never fire, and count as dead from the first step on."""
    chosen = plan(case)
    config = chosen.config
    dictionary = Crosscoder(
        shapes(case),
        partition_of(chosen, ("a", "b")),
        config.code_normalization,
        torch.float64,
        activation=activation_of(config),
        center=config.center,
    )
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in dictionary.parameters():
            random = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(0.4 * random)
        dictionary.b_enc[[2, 9, 10, 20]] = -50
        if dictionary.activation.kind == "jump_relu":
            dictionary.threshold.fill_(config.threshold_init)
    if dictionary.tied_rows() is not None:
        tie_rows(list(dictionary.W_dec.values()), dictionary.tied_rows())
    made = Trainee("one", dictionary, config, ranks)
    made.rows_since_fired[[2, 9, 10, 20]] = 4 * ROWS
    return made


def batch(case: str, step: int) -> dict[str, Tensor]:
    """Of the first third of the rows all are large: one of three ranks has nothing but outliers."""
    generator = torch.Generator().manual_seed(100 + step)
    size = torch.ones(ROWS, 1, dtype=torch.float64)
    size[: ROWS // 3] = 3
    return {
        h.name: size * torch.randn(ROWS, h.width, generator=generator, dtype=torch.float64)
        for h in shapes(case)
    }


def train(case: str, ranks: Ranks) -> tuple[list[StepMetrics], dict[str, Tensor]]:
    """Metrics of every step, and what the run leaves."""
    one = trainee(case, ranks)
    rows = ranks.rows_of(ROWS)
    here = slice(ranks.rank * rows, (ranks.rank + 1) * rows)
    metrics = [
        one.step({name: x[here] for name, x in batch(case, step).items()}, step)
        for step in range(STEPS)
    ]
    left = dict(one.dictionary.state_dict())
    left |= {"rows_since_fired": one.rows_since_fired, "dead": one.dead, "bad": one.bad_batches}
    if one.annealed is not None:
        left |= one.annealed.tensors()
    return metrics, left


def assert_close(found: Tensor, wanted: Tensor, what: str) -> None:
    torch.testing.assert_close(
        found, wanted, rtol=1e-7, atol=1e-9, equal_nan=True, msg=lambda text: f"{what}: {text}"
    )


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("case", CASES)
def test_steps_on_slices_are_those_on_the_whole_batch(case, size):
    wanted_metrics, wanted = train(case, ALONE)
    for metrics, left in on_ranks(size, lambda ranks: train(case, ranks)):
        for step, (one, other) in enumerate(zip(metrics, wanted_metrics, strict=True)):
            assert one.terms.keys() == other.terms.keys()
            for name, value in other.terms.items():
                assert_close(one.terms[name], value, f"{name} at step {step}")
            for name in ("loss", "fve", "l0", "gradient_norm"):
                assert_close(getattr(one, name), getattr(other, name).double(), f"{name} {step}")
        assert left.keys() == wanted.keys()
        for name, value in wanted.items():
            assert_close(left[name], value, name)


@pytest.mark.parametrize("case", ["dfc", "jump_relu", "p_anneal, resample"])
def test_ranks_stay_equal_bit_by_bit(case):
    (_, first), (_, second) = on_ranks(2, lambda ranks: train(case, ranks))
    for name, value in first.items():
        assert torch.equal(second[name], value), name


def test_a_batch_that_is_bad_on_one_rank_is_skipped_by_all():
    def work(ranks: Ranks) -> tuple[int, bool]:
        one = trainee("dfc", ranks)
        before = one.dictionary.W_dec["0"].detach().clone()
        rows = {name: x[:6].clone() for name, x in batch("dfc", 0).items()}
        if ranks.rank == 1:
            rows["b"][2, 3] = float("nan")
        one.step(rows, 0)
        return int(one.bad_batches), torch.equal(before, one.dictionary.W_dec["0"])

    assert on_ranks(2, work) == [(1, True), (1, True)]


def slices(x: Tensor, sizes: list[int]) -> list[Tensor]:
    return list(x.split(sizes))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_batch_topk_of_slices_is_that_of_the_whole_batch_with_equal_scores_too(data):
    sizes = data.draw(st.lists(st.integers(0, 4), min_size=2, max_size=3).filter(sum))
    features = data.draw(st.integers(1, 5))
    entries = sum(sizes) * features
    values = data.draw(st.lists(st.integers(-2, 3), min_size=entries, max_size=entries))
    k = data.draw(st.integers(1, features))
    pre = torch.tensor(values, dtype=torch.float32).view(-1, features)
    scale = torch.ones(2, features)
    scale[1, 0] = 2.0

    def work(ranks: Ranks) -> tuple:
        own = slices(pre, sizes)[ranks.rank]
        whole = slice_of(ranks, len(own), equal=False)
        pattern, smallest = batch_topk(own, scale[1], k, whole=whole)
        return pattern.flat, smallest, batch_topk_each(own, scale, k, [0, 1], whole)

    wanted, smallest = batch_topk(pre, scale[1], k)
    each, least_H, on_HN = batch_topk_each(pre, scale, k, [0, 1])
    found = on_ranks(len(sizes), work)
    starts = [features * sum(sizes[:number]) for number in range(len(sizes))]
    flats = [flat + start for (flat, _, _), start in zip(found, starts, strict=True)]
    assert torch.cat(flats).tolist() == wanted.flat.tolist()
    flats = [got[0].flat + start for (_, _, got), start in zip(found, starts, strict=True)]
    assert torch.cat(flats).tolist() == each.flat.tolist()
    assert torch.equal(torch.cat([got[2] for _, _, got in found], dim=1), on_HN)
    for _, own_smallest, got in found:
        assert own_smallest == smallest
        assert torch.equal(got[1], least_H)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=2, max_size=3).filter(sum), st.integers(0, 1000))
def test_figures_of_slices_are_those_of_all_rows(sizes, seed):
    x = 100 + torch.randn(sum(sizes), 3, generator=torch.Generator().manual_seed(seed)).double()

    def work(ranks: Ranks) -> tuple:
        own = slices(x, sizes)[ranks.rank]
        whole = slice_of(ranks, len(own), equal=False)
        total = ranks.sum(whole.weighted(whole.summed(own.sum())))
        return whole.mean(own[:, 0].mean()), *whole.variations([own]), *whole.all_rows([own]), total

    for mean, variation, rows, total in on_ranks(len(sizes), work):
        torch.testing.assert_close(mean, x[:, 0].mean())
        centred = x - x.mean(dim=0)
        torch.testing.assert_close(variation, centred.square().sum(), rtol=1e-9, atol=1e-9)
        assert torch.equal(rows, x)
        torch.testing.assert_close(total, x.sum())
