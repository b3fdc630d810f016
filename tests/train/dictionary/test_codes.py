"""Sparse codes against dense matrices, and their hand-written derivatives against autograd."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from train.dictionary.codes import (
    Pattern,
    SparseCodes,
    Visibility,
    select_preactivations,
)

WIDTH = 3


def visibility_of(features: list[int], total: int) -> Visibility:
    local = torch.full((total,), -1)
    local[features] = torch.arange(len(features))
    return Visibility(runs_of(features), torch.tensor(features), local)


def runs_of(features: list[int]) -> tuple[slice, ...]:
    """Neighbours joined, but for some: longer ones are not required."""
    starts = [n for n, f in enumerate(features) if n == 0 or f != features[n - 1] + 1 or n == 3]
    stops = [*starts[1:], len(features)]
    return tuple(
        slice(features[i], features[j - 1] + 1) for i, j in zip(starts, stops, strict=True)
    )


@st.composite
def cases(draw: st.DrawFn) -> tuple[int, int, list[int], list[int]]:
    """Rows, features, positions of entries, and features that a hookpoint sees."""
    batch, features = draw(st.integers(1, 5)), draw(st.integers(1, 6))
    flat = sorted(draw(st.sets(st.integers(0, batch * features - 1))))
    visible = sorted(draw(st.sets(st.integers(0, features - 1), min_size=1)))
    return batch, features, flat, visible


def built(case: tuple[int, int, list[int], list[int]]) -> tuple[Pattern, Visibility]:
    # Outside of the strategy: checking a tuple's type draws from `random`, which hypothesis minds.
    batch, features, flat, visible = case
    pattern = Pattern(torch.tensor(flat, dtype=torch.int64), batch, features)
    return pattern, visibility_of(visible, features)


def random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def dense_codes(pattern: Pattern, values: Tensor) -> Tensor:
    full = torch.zeros(pattern.batch, pattern.features, dtype=values.dtype)
    places = [divmod(position, pattern.features) for position in pattern.flat.tolist()]
    for (row, feature), value in zip(places, values, strict=True):
        full[row, feature] = value
    return full


def full_width(W_VD: Tensor, visibility: Visibility) -> Tensor:
    full = torch.zeros(len(visibility.local_F), W_VD.shape[1], dtype=W_VD.dtype)
    full[visibility.features_V] = W_VD
    return full


def sparse_pattern() -> tuple[Pattern, Visibility]:
    """4 rows, 6 features; row 2 and features 3 and 5 are empty; feature 0 is not seen."""
    flat = torch.tensor([0, 1, 4, 6 + 2, 6 + 4, 18 + 0, 18 + 1])
    return Pattern(flat, 4, 6), visibility_of([1, 2, 4, 5], 6)


def empty_pattern() -> tuple[Pattern, Visibility]:
    return Pattern(torch.zeros(0, dtype=torch.int64), 4, 6), visibility_of([1, 2, 4, 5], 6)


PATTERNS = pytest.mark.parametrize("make", [sparse_pattern, empty_pattern])


@given(cases())
@settings(max_examples=60, deadline=None)
def test_dense_codes_hold_every_value_at_its_place(case):
    pattern, _ = built(case)
    values = random(len(pattern.flat))
    assert torch.equal(SparseCodes(pattern, values).dense(), dense_codes(pattern, values))


@given(cases())
@settings(max_examples=60, deadline=None)
def test_row_and_feature_order_describe_the_same_entries(case):
    pattern, _ = built(case)
    mask = dense_codes(pattern, torch.ones(len(pattern.flat)))
    assert pattern.row_starts.diff().tolist() == mask.sum(1).tolist()
    assert pattern.feature_starts.diff().tolist() == mask.sum(0).tolist()
    order = pattern.by_feature
    by_feature = list(
        zip(pattern.columns[order].tolist(), pattern.rows[order].tolist(), strict=True)
    )
    assert by_feature == [tuple(place) for place in mask.T.nonzero().tolist()]


@given(cases())
@settings(max_examples=60, deadline=None)
def test_decoding_and_its_gradients_are_those_of_the_dense_product(case):
    pattern, visibility = built(case)
    values = random(len(pattern.flat), seed=1).requires_grad_()
    W = random(len(visibility.features_V), WIDTH, seed=2).requires_grad_()
    probe = random(pattern.batch, WIDTH, seed=3)
    found = SparseCodes(pattern, values).decode(W, visibility, 0)
    wanted = dense_codes(pattern, values) @ full_width(W, visibility)
    torch.testing.assert_close(found, wanted)
    for mine, theirs in zip(
        torch.autograd.grad((found * probe).sum(), (values, W)),
        torch.autograd.grad((wanted * probe).sum(), (values, W), materialize_grads=True),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs)


@given(cases())
@settings(max_examples=60, deadline=None)
def test_selected_preactivations_and_their_gradients_are_those_of_the_dense_product(case):
    pattern, visibility = built(case)
    x = random(pattern.batch, WIDTH, seed=1)
    W = random(len(visibility.features_V), WIDTH, seed=2).requires_grad_()
    bias = random(pattern.features, seed=3).requires_grad_()
    pre = x @ full_width(W, visibility).T + bias
    probe = random(len(pattern.flat), seed=4)
    found = select_preactivations(pre.detach(), pattern, bias, [(x, W, visibility)])
    wanted = pre.flatten()[pattern.flat]
    assert torch.equal(found, wanted)
    for mine, theirs in zip(
        torch.autograd.grad((found * probe).sum(), (W, bias)),
        torch.autograd.grad((wanted * probe).sum(), (W, bias), materialize_grads=True),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs)


@PATTERNS
def test_derivative_of_decoding_passes_gradcheck(make):
    pattern, visibility = make()

    def decode(values: Tensor, W: Tensor) -> Tensor:
        return SparseCodes(pattern, values).decode(W, visibility, 0)

    values = random(len(pattern.flat), seed=1).requires_grad_()
    W = random(4, WIDTH, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(decode, (values, W))


@PATTERNS
def test_derivative_of_selection_passes_gradcheck(make):
    pattern, visibility = make()
    everything = visibility_of(list(range(6)), 6)
    x, y = random(4, WIDTH, seed=1), random(4, 2, seed=2)

    def select(W: Tensor, V: Tensor, bias: Tensor) -> Tensor:
        with torch.no_grad():
            pre = x @ full_width(W, visibility).T + y @ V.T + bias
        return select_preactivations(pre, pattern, bias, [(x, W, visibility), (y, V, everything)])

    W = random(4, WIDTH, seed=3).requires_grad_()
    V = random(6, 2, seed=4).requires_grad_()
    bias = random(6, seed=5).requires_grad_()
    assert torch.autograd.gradcheck(select, (W, V, bias))
