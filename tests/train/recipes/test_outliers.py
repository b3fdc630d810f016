import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from train.recipes.outliers import drop_outliers, kept_rows

from .dense_codes import random

NORMS = st.one_of(st.just(0.0), st.floats(1e-3, 100))


def rows_of_norms(*norms: float) -> torch.Tensor:
    direction = random(1, 3)
    return torch.tensor(norms, dtype=torch.float64)[:, None] * direction / direction.norm()


def test_a_row_is_dropped_if_its_norm_is_extreme_at_any_hookpoint():
    a = rows_of_norms(1, 1, 1, 10, 2)
    b = rows_of_norms(5, 11, 5, 5, 5)
    assert kept_rows([a, b], 2.0).tolist() == [True, False, True, False, True]
    assert kept_rows([a, b], 2.5).tolist() == [True, True, True, False, True]
    assert kept_rows([a, b], 10.5).tolist() == [True] * 5


@given(
    norms=arrays.arrays(float, st.integers(1, 9), elements=NORMS),
    factor=st.floats(1.01, 10),
    scale=st.sampled_from([0.25, 4.0, 1024.0]),
)
def test_units_play_no_part_and_half_of_the_rows_stay(norms, factor, scale):
    x = torch.from_numpy(norms)[:, None]
    kept = kept_rows([x], factor)
    assert torch.equal(kept, kept_rows([scale * x], factor))
    assert kept.sum() >= len(norms) / 2


def test_a_bad_batch_is_not_hidden():
    x = rows_of_norms(1, 1, 1)
    x[0, 0] = float("nan")
    assert kept_rows([x], 2.0).tolist() == [True] * 3


def test_dropped_rows_are_gone_at_every_hookpoint():
    a, b = rows_of_norms(1, 1, 1, 10, 2), rows_of_norms(5, 11, 5, 5, 6)
    left = drop_outliers([a, b], 2.0)
    assert torch.equal(left[0], a[[0, 2, 4]])
    assert torch.equal(left[1], b[[0, 2, 4]])
