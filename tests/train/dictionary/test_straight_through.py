"""Values and straight-through gradients of JumpReLU, entry by entry from the paper's formulas."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck

from train.dictionary.straight_through import active_indicator, jump_relu

BANDWIDTH = 0.25
entries = st.lists(
    st.tuples(st.floats(-2, 2), st.floats(0, 1), st.floats(-3, 3)), min_size=1, max_size=8
)


def near(pre: float, threshold: float) -> bool:
    return abs((pre - threshold) / BANDWIDTH) < 0.5 and pre > 0


def vector(values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@given(entries)
def test_jump_relu_is_the_papers(found):
    pre, threshold = (vector([e[n] for e in found]).requires_grad_() for n in (0, 1))
    values = jump_relu(pre, threshold, BANDWIDTH)
    values.backward(vector([g for _, _, g in found]))
    on = [p > t for p, t, _ in found]
    assert values.tolist() == [p if o else 0 for (p, _, _), o in zip(found, on, strict=True)]
    assert pre.grad.tolist() == [g if o else 0 for (_, _, g), o in zip(found, on, strict=True)]
    wanted = vector([-t / BANDWIDTH * near(p, t) * g for p, t, g in found])
    torch.testing.assert_close(threshold.grad, wanted)


@given(entries)
def test_the_indicator_counts_active_entries_and_moves_thresholds_alone(found):
    pre, threshold = (vector([e[n] for e in found]).requires_grad_() for n in (0, 1))
    counted = active_indicator(pre, threshold, BANDWIDTH)
    counted.backward(vector([g for _, _, g in found]))
    assert counted.tolist() == [float(p > t) for p, t, _ in found]
    assert pre.grad is None
    wanted = vector([-1 / BANDWIDTH * near(p, t) * g for p, t, g in found])
    torch.testing.assert_close(threshold.grad, wanted)


def test_a_threshold_per_feature_gets_the_sum_over_its_rows():
    pre = vector([[0.5, 0.9], [0.6, 0.2], [0.45, 0.95]])
    threshold = vector([0.5, 0.9]).requires_grad_()
    jump_relu(pre, threshold, BANDWIDTH).sum().backward()
    torch.testing.assert_close(threshold.grad, vector([-0.5 * 3, -0.9 * 2]) / BANDWIDTH)


def test_away_from_its_threshold_the_gradient_to_pre_is_the_true_one():
    pre = vector([-1.0, 0.1, 0.9, 2.0]).requires_grad_()
    assert gradcheck(lambda p: jump_relu(p, vector([0.5] * 4), 1e-3), (pre,))
