import math

import pytest
import torch
from hypothesis import given
from torch.autograd import gradcheck

from train.recipes.penalty import (
    SMALLEST_CODE,
    entropy,
    l0_ste,
    l0_target_loss,
    l1,
    lp,
    row_sums,
)

from .dense_codes import FORMS, codes_of, example, gradient_of, matrices, random

WEIGHT = random(6, seed=2).abs() + 0.1


def powers(f: float, p: float) -> float:
    return f**p if f > SMALLEST_CODE else f * SMALLEST_CODE ** (p - 1)


def entropy_of_row(row: list[float]) -> float:
    total = sum(row)
    if total <= 1e-12:
        return 0.0
    return -sum(f / total * math.log(f / total) for f in row if f > 0)


@pytest.mark.parametrize("form", FORMS)
@given(dense=matrices())
def test_penalties_are_those_of_the_formulas(form, dense):
    codes, rows = codes_of(form, dense), dense.tolist()
    weight = WEIGHT[: dense.shape[1]]
    pairs = [list(zip(row, weight.tolist(), strict=True)) for row in rows]

    def mean(of_row) -> float:
        return sum(of_row) / len(rows)

    assert float(l1(codes)) == pytest.approx(mean(map(sum, rows)))
    assert float(l1(codes, weight)) == pytest.approx(mean(sum(f * w for f, w in r) for r in pairs))
    wanted = mean(sum(powers(f, 0.3) * w for f, w in row) for row in pairs)
    assert float(lp(codes, 0.3, weight)) == pytest.approx(wanted)
    assert float(lp(codes, 1.0, weight)) == pytest.approx(float(l1(codes, weight)))
    assert float(entropy(codes)) == pytest.approx(mean(map(entropy_of_row, rows)), abs=1e-9)


@pytest.mark.parametrize("form", FORMS)
def test_gradients_reach_codes_and_weights(form):
    positive = example() > 0
    start = example()[positive].requires_grad_()
    weight = WEIGHT.clone().requires_grad_()

    def codes(values):
        return codes_of(form, torch.zeros_like(example()).index_put((positive,), values), positive)

    assert gradcheck(lambda v, w: l1(codes(v), w), (start, weight))
    assert gradcheck(lambda v, w: lp(codes(v), 0.4, w), (start, weight))
    assert gradcheck(lambda v: entropy(codes(v)), (start,))
    assert gradcheck(lambda v: row_sums(codes(v), codes(v).values), (start,))


@pytest.mark.parametrize("form", FORMS)
def test_gradients_at_and_near_zero_are_finite_and_bounded(form):
    dense = torch.tensor([[0.0, 1e-30, 1e-9, 1.0], [0.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    everywhere = torch.ones_like(dense, dtype=torch.bool)
    slope = gradient_of(lambda x: lp(codes_of(form, x, everywhere), 0.2), dense) * 2
    below = SMALLEST_CODE**-0.8
    wanted = torch.tensor([[below, below, below, 0.2], [below] * 4], dtype=torch.float64)
    torch.testing.assert_close(slope, wanted)
    of_entropy = gradient_of(lambda x: entropy(codes_of(form, x, everywhere)), dense)
    assert of_entropy.isfinite().all()
    assert torch.equal(of_entropy[1], torch.zeros(4, dtype=torch.float64))


@pytest.mark.parametrize("form", FORMS)
def test_codes_without_a_value_cost_nothing(form):
    codes = codes_of(form, torch.zeros(3, 4, dtype=torch.float64))
    assert [float(term) for term in (l1(codes), lp(codes, 0.5), entropy(codes))] == [0, 0, 0]


def test_entropy_of_equal_codes_is_the_logarithm_of_their_number_at_any_size():
    for size in (1e-6, 1.0, 1e6):
        codes = codes_of("sparse", torch.full((2, 8), size))
        assert float(entropy(codes)) == pytest.approx(math.log(8), abs=1e-5)


def test_l0_counts_active_entries_and_moves_only_thresholds_near_an_entry():
    bandwidth, batch = 0.1, 2
    pre = torch.tensor([0.5, 0.52, 0.46, 0.7, 0.2, 0.56], dtype=torch.float64, requires_grad=True)
    threshold = torch.full((6,), 0.5, dtype=torch.float64, requires_grad=True)
    l0 = l0_ste(pre, threshold, bandwidth, batch)
    assert float(l0.detach()) == 3 / batch  # 0.52, 0.7, 0.56; one at the threshold is off
    l0.backward()
    assert pre.grad is None
    inside = torch.tensor([1.0, 1, 1, 0, 0, 0], dtype=torch.float64)
    torch.testing.assert_close(threshold.grad, -inside / bandwidth / batch)


def test_l0_of_a_matrix_sums_the_gradient_of_each_threshold():
    pre, bandwidth = random(7, 3).abs(), 0.4
    threshold = torch.full((3,), 0.6, dtype=torch.float64, requires_grad=True)
    l0_ste(pre, threshold, bandwidth, 7).backward()
    near = [[abs(value - 0.6) < 0.2 for value in row] for row in pre.tolist()]
    counts = torch.tensor(near, dtype=torch.float64).sum(dim=0)
    assert counts.sum() > 0
    torch.testing.assert_close(threshold.grad, -counts / bandwidth / 7)


def test_the_target_loss_is_zero_at_the_target_and_one_without_codes():
    l0 = torch.tensor(30.0, dtype=torch.float64, requires_grad=True)
    assert float(l0_target_loss(torch.tensor(20.0), 20.0)) == 0
    assert float(l0_target_loss(torch.tensor(0.0), 20.0)) == 1
    loss = l0_target_loss(l0, 20.0)
    assert float(loss.detach()) == pytest.approx(0.25)
    loss.backward()
    assert float(l0.grad) == pytest.approx(2 * 0.5 / 20)
