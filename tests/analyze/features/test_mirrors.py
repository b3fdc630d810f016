import numpy as np
import pytest

from analyze.features.mirrors import LIKE, mirror_of, mirrors_table, pairs_table
from analyze.statistics.cofiring import CoFiring

from ..made import Rows, feed

ROWS = 400


@pytest.fixture(scope="module")
def pairs():
    """Features 4, 5, 6 of the other model: a mirror of 1, a louder one of 1, and one of nothing."""
    generator = np.random.default_rng(0)
    on = generator.random((ROWS, 7)) < 0.2
    on[:, 4] = on[:, 1]
    on[:40, 4] = False
    on[:, 5] = on[:, 1]
    strengths = generator.random((ROWS, 7)) + 0.5
    strengths[:, 5] = 3 * strengths[:, 1]
    codes = np.where(on, strengths, 0).astype(np.float32)
    found = CoFiring(7, np.array([0, 1, 2]), np.array([4, 5, 6]))
    feed([found], Rows([], codes, np.zeros(ROWS, bool)))
    return pairs_table(found, least=2), codes


def test_pairs_are_told_with_how_often_each_fires_and_both_do(pairs):
    table, codes = pairs
    on = codes > 0
    for line in table.iter_rows(named=True):
        a, b = line["feature_a"], line["feature_b"]
        assert (line["fires_a"], line["fires_b"]) == (on[:, a].sum(), on[:, b].sum())
        assert line["both"] == (on[:, a] & on[:, b]).sum()
        assert line["jaccard"] == line["both"] / (on[:, a] | on[:, b]).sum()
    alike = np.maximum(table["jaccard"], table["correlation"])
    assert (np.diff(alike) <= 0).all()


def test_mirrors_are_the_pairs_that_fire_on_the_same_rows(pairs):
    mirrors = mirrors_table(pairs[0])
    assert list(zip(mirrors["feature_a"], mirrors["feature_b"], strict=True)) == [(1, 5), (1, 4)]
    assert (mirrors["jaccard"] >= LIKE).all()


def test_a_features_mirror_is_the_one_most_like_it(pairs):
    found = {line["feature"]: line for line in mirror_of(mirrors_table(pairs[0])).to_dicts()}
    assert {feature: line["mirror"] for feature, line in found.items()} == {1: 5, 5: 1, 4: 1}
    assert found[1]["mirror_jaccard"] == 1


def test_a_pair_that_fires_together_too_seldom_is_none():
    codes = np.zeros((50, 2), np.float32)
    codes[:3] = 1
    found = CoFiring(2, np.array([0]), np.array([1]))
    feed([found], Rows([], codes, np.zeros(50, bool)))
    assert mirrors_table(pairs_table(found, 3)).height == 1
    assert mirrors_table(pairs_table(found, 4)).is_empty()


def test_a_correlation_that_cannot_be_told_is_null():
    codes = np.full((99, 2), 0.1, np.float32)  # both always fire, equally strongly
    found = CoFiring(2, np.array([0]), np.array([1]))
    feed([found], Rows([], codes, np.zeros(99, bool)))
    (line,) = mirrors_table(pairs_table(found, 1)).to_dicts()
    assert (line["jaccard"], line["correlation"]) == (1, None)
