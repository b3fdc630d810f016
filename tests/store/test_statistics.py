import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from store.statistics import RowStatistics, merge

seeds = st.integers(0, 2**32 - 1)


def random_rows(seed: int, rows: int = 200, width: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    scale = torch.exp(2 * torch.randn(width, generator=generator))
    shift = 3 * torch.randn(width, generator=generator)
    return (torch.randn(rows, width, generator=generator) * scale + shift).to(torch.bfloat16)


def assert_close(found: RowStatistics, expected: RowStatistics) -> None:
    assert found.count == expected.count
    assert found.norm_bins == expected.norm_bins
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(
        found.squared_deviations, expected.squared_deviations, rtol=1e-11, atol=1e-11
    )


def test_mean_is_numpys_in_float64():
    rows = random_rows(0, rows=9000)
    expected = rows.double().numpy().mean(axis=0)
    np.testing.assert_allclose(RowStatistics.of(rows).mean, expected, rtol=1e-12, atol=1e-13)


def test_variance_is_numpys_in_float64():
    rows = random_rows(1, rows=9000)
    expected = rows.double().numpy().var(axis=0)
    np.testing.assert_allclose(RowStatistics.of(rows).variance, expected, rtol=1e-12)


def test_variance_survives_a_mean_ten_thousand_times_the_deviation():
    values = torch.randn(20_000, 3, generator=torch.Generator().manual_seed(0)) + 1e4
    expected = values.double().numpy().var(axis=0)
    np.testing.assert_allclose(RowStatistics.of(values).variance, expected, rtol=1e-9)


def test_rows_that_are_measured_stay_as_they_were():
    rows = torch.randn(10, 3, dtype=torch.float64)
    before = rows.clone()
    RowStatistics.of(rows)
    assert torch.equal(rows, before)


@given(seeds, st.lists(st.integers(0, 200), max_size=6))
@settings(max_examples=40, deadline=None)
def test_merged_pieces_equal_the_whole_however_it_is_split(seed, cuts):
    rows = random_rows(seed)
    edges = [0, *sorted(cuts), len(rows)]
    pieces = [RowStatistics.of(rows[a:b]) for a, b in pairwise(edges)]
    assert_close(merge(pieces, width=5), RowStatistics.of(rows))


@given(seeds, st.integers(0, 200), st.integers(0, 200))
@settings(max_examples=40, deadline=None)
def test_merging_is_associative(seed, one, other):
    rows = random_rows(seed)
    low, high = sorted((one, other))
    a, b, c = (RowStatistics.of(piece) for piece in (rows[:low], rows[low:high], rows[high:]))
    left = merge([merge([a, b], width=5), c], width=5)
    right = merge([a, merge([b, c], width=5)], width=5)
    assert_close(left, right)


@given(seeds, st.integers(0, 50))
@settings(max_examples=40, deadline=None)
def test_a_round_trip_through_json_loses_no_bit(seed, rows):
    statistics = RowStatistics.of(random_rows(seed, rows=rows))
    found = RowStatistics.from_json(json.loads(json.dumps(statistics.to_json())))
    assert found.mean.tobytes() == statistics.mean.tobytes()
    assert found.squared_deviations.tobytes() == statistics.squared_deviations.tobytes()
    assert (found.count, found.norm_bins) == (statistics.count, statistics.norm_bins)


@given(seeds, st.integers(1, 300), st.integers(1, 16))
@settings(max_examples=60, deadline=None)
def test_norm_quantiles_are_within_the_stated_bound(seed, rows, sixteenths):
    values = random_rows(seed, rows=rows)
    norms = np.sort(np.linalg.norm(values.double().numpy(), axis=1))
    rank = -(-sixteenths * rows // 16)
    found = RowStatistics.of(values).norm_quantile(sixteenths / 16)
    assert found == pytest.approx(norms[rank - 1], rel=0.011)


def test_rows_of_zeros_have_a_norm_of_practically_zero():
    assert RowStatistics.of(torch.zeros(4, 3)).norm_quantile(0.5) < 1e-15


def test_statistics_of_no_rows_are_zero():
    empty = RowStatistics.of(torch.zeros(0, 3))
    assert (empty.count, empty.norm_quantile(0.5), empty.variance.tolist()) == (0, 0.0, [0.0] * 3)
