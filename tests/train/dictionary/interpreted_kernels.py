"""Tests of the CUDA kernels, interpreted on a CPU; run by test_triton_kernels.py.

They and torch's own sparse products are compared with dense ones.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from train.dictionary import sparse_products, triton_kernels

IMPLEMENTATIONS = (sparse_products, triton_kernels)


@st.composite
def matrices(draw: st.DrawFn) -> dict[str, object]:
    """Entries per row, and for each entry its place, -1 for none."""
    rows, places = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    row = st.lists(st.integers(-1, places - 1), max_size=places, unique=True)
    entries = [draw(row) for _ in range(rows)]
    width = draw(st.sampled_from([1, 3, 16, 17]))
    return {"entries": entries, "places": places, "width": width, "seed": draw(st.integers(0, 99))}


def built(case: dict, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    """starts, places, values, left (rows, width), right (places, width) and the dense matrix."""
    entries = case["entries"]
    generator = torch.Generator().manual_seed(case["seed"])

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    lengths = torch.tensor([0, *map(len, entries)])
    places = torch.tensor([place for row in entries for place in row], dtype=torch.int64)
    values = noise(len(places))
    dense = torch.zeros(len(entries), case["places"], dtype=dtype)
    position = 0
    for number, row in enumerate(entries):
        for place in row:
            if place >= 0:
                dense[number, place] = values[position]
            position += 1
    left, right = noise(len(entries), case["width"]), noise(case["places"], case["width"])
    return lengths.cumsum(0), places, values, left, right, dense


@pytest.mark.parametrize("module", IMPLEMENTATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@given(case=matrices())
@settings(max_examples=25, deadline=None)
def test_the_sum_over_entries_is_the_dense_product(module, dtype, case):
    starts, places, values, _, right, dense = built(case, dtype)
    found = module.gather_sum(starts, places, values, right)
    torch.testing.assert_close(found, dense @ right)
    for first in range(len(starts) - 1):  # a part of the rows
        part = module.gather_sum(starts[first:], places, values, right)
        torch.testing.assert_close(part, (dense @ right)[first:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@given(case=matrices())
@settings(max_examples=25, deadline=None)
def test_products_at_entries_are_those_of_the_dense_product(dtype, case):
    starts, places, _, left, right, _ = built(case, dtype)
    rows = torch.arange(len(left)).repeat_interleave(starts.diff())
    wanted = (left @ right.T)[rows, places.clamp(min=0)] * (places >= 0)
    torch.testing.assert_close(sparse_products.products_at(starts, places, left, right), wanted)


def by_feature(places: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Where the entries of each place begin, and the order that puts those of none last."""
    order = torch.where(places >= 0, places, count).argsort(stable=True)
    sizes = torch.bincount(places[places >= 0], minlength=count)
    return torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)]), order


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@given(case=matrices())
@settings(max_examples=25, deadline=None)
def test_both_gradients_of_a_decoder_are_those_of_the_dense_product(dtype, case):
    starts, places, values, grad, weights, dense = built(case, dtype)
    rows = torch.arange(len(grad)).repeat_interleave(starts.diff())
    feature_starts, order = by_feature(places, len(weights))
    of_values, of_weights = triton_kernels.decode_gradients(
        feature_starts, rows[order], order, values, grad, weights
    )
    torch.testing.assert_close(of_weights, dense.T @ grad)
    wanted = (grad @ weights.T)[rows, places.clamp(min=0)] * (places >= 0)
    torch.testing.assert_close(of_values, wanted)


def test_a_width_beyond_the_largest_block_is_walked_in_several():
    width = 2 * triton_kernels.LARGEST_BLOCK + 5
    row = [0, 2, 3, 4, 5, 6]  # more than are walked at a time
    case = {"entries": [row, [], [1]], "places": 7, "width": width, "seed": 0}
    starts, places, values, left, right, dense = built(case, torch.float64)
    torch.testing.assert_close(
        triton_kernels.gather_sum(starts, places, values, right), dense @ right
    )
    rows = torch.arange(3).repeat_interleave(starts.diff())
    feature_starts, order = by_feature(places, len(right))
    of_values, of_weights = triton_kernels.decode_gradients(
        feature_starts, rows[order], order, values, left, right
    )
    torch.testing.assert_close(of_weights, dense.T @ left)
    torch.testing.assert_close(of_values, (left @ right.T)[rows, places])


@pytest.mark.parametrize("rows", [1, 5, 70])
def test_maxima_of_blocks_are_those_of_the_written_out_scores(rows):
    generator = torch.Generator().manual_seed(0)
    pre = torch.randn(rows, 96, generator=generator)
    scale = torch.rand(96, generator=generator)
    found = triton_kernels.block_maxima(pre, scale, 32)
    assert torch.equal(found, (pre * scale).relu().view(-1, 32).amax(dim=1))
