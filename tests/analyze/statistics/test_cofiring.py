import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyze.statistics import cofiring as module
from analyze.statistics.cofiring import CoFiring

from ..made import Rows

FEATURES = 8
subsets = st.lists(st.integers(0, FEATURES - 1), unique=True).map(
    lambda own: np.array(sorted(own), np.int64)
)


def seen(codes):
    return Rows([], codes, np.zeros(len(codes), bool)).seen()


def random_codes(rows, seed, density=0.4):
    generator = np.random.default_rng(seed)
    on = generator.random((rows, FEATURES)) < density
    return np.where(on, generator.gamma(2, 1, (rows, FEATURES)), 0).astype(np.float32)


@pytest.fixture(autouse=True)
def _few_pairs_at_once(monkeypatch):
    monkeypatch.setattr(module, "PAIRS_AT_ONCE", 7)


@given(subsets, subsets, st.lists(st.integers(0, 30), min_size=1, max_size=4), st.integers(1, 5))
def test_every_pair_is_counted_as_dense_matrices_count_it(first, second, batches, least):
    found = CoFiring(FEATURES, first, second)
    parts = [random_codes(rows, seed) for seed, rows in enumerate(batches)]
    for part in parts:
        found.update(seen(part))
    codes = np.concatenate(parts).astype(np.float64)
    on = codes > 0
    both = on[:, first].T.astype(int) @ on[:, second].astype(int)
    expected = [(f, s) for f, s in np.argwhere(both >= least)]
    pairs = found.together(least)
    assert list(zip(pairs.first, pairs.second, strict=True)) == [
        (first[f], second[s]) for f, s in expected
    ]
    np.testing.assert_array_equal(pairs.both, [both[pair] for pair in expected])
    either = [(on[:, first[f]] | on[:, second[s]]).sum() for f, s in expected]
    np.testing.assert_allclose(pairs.jaccard, pairs.both / np.array(either))
    for own, fires in zip((first, second), found.fires(), strict=True):
        np.testing.assert_array_equal(fires, on[:, own].sum(axis=0))


def test_correlation_is_pearsons_over_all_rows():
    codes = np.concatenate([random_codes(200, 0), np.zeros((50, FEATURES), np.float32)])
    codes[:, 5] = 2 * codes[:, 1]
    found = CoFiring(FEATURES, np.array([0, 1]), np.array([4, 5, 7]))
    for start in range(0, 250, 37):
        found.update(seen(codes[start : start + 37]))
    pairs = found.together(1)
    exact = np.corrcoef(codes.astype(np.float64), rowvar=False)
    np.testing.assert_allclose(pairs.correlation, exact[pairs.first, pairs.second], atol=1e-9)
    assert pairs.correlation[(pairs.first == 1) & (pairs.second == 5)] == pytest.approx(1)


def test_other_sets_are_other_statistics():
    first, second = np.array([0, 1]), np.array([4])
    assert CoFiring(8, first, second).settings() != CoFiring(8, second, first).settings()


def test_a_set_without_features_pairs_with_nothing():
    found = CoFiring(FEATURES, np.zeros(0, np.int64), np.arange(3))
    found.update(seen(random_codes(20, 0)))
    assert len(found.together(1).both) == 0
