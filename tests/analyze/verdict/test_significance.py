"""p-values and false-discovery rates against their definitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyze.verdict.significance import conditional_p, empirical_p, false_discovery_q, largest

numbers = st.lists(st.floats(0, 1), min_size=1, max_size=40)


@given(numbers, numbers)
def test_a_p_value_counts_the_null_that_is_as_extreme(observed, null):
    found = empirical_p(np.array(observed), np.array(null))
    for value, p in zip(observed, found, strict=True):
        assert p == (1 + sum(n <= value for n in null)) / (1 + len(null))


def test_what_is_not_known_has_no_p_value_and_counts_for_nothing_in_a_null():
    found = empirical_p(np.array([0.5, np.nan]), np.array([0.1, np.nan, 0.9]))
    assert found[0] == 2 / 3
    assert np.isnan(found[1])
    with pytest.raises(ValueError, match="no null"):
        empirical_p(np.array([0.5]), np.array([np.nan]))


def test_of_several_tests_the_worst_counts_and_an_unknown_one_is_not_passed():
    found = largest([np.array([0.1, 0.2, np.nan]), np.array([0.3, 0.1, 0.0])])
    np.testing.assert_array_equal(found, [0.3, 0.2, 1.0])


@given(st.lists(st.floats(1e-6, 1), max_size=30), st.floats(0.01, 0.5))
def test_calls_are_those_of_the_step_up_procedure(p, level):
    q = false_discovery_q(np.array(p))
    ranked = sorted(p)
    passing = [i for i, value in enumerate(ranked, 1) if value <= level * i / len(p)]
    called = max(passing, default=0)
    assert int((q <= level * (1 + 1e-12)).sum()) >= called
    assert int((q <= level * (1 - 1e-12)).sum()) <= called
    assert ((q >= np.array(p) * (1 - 1e-12)) & (q <= 1)).all()


def test_under_the_null_the_share_of_false_calls_stays_at_its_rate():
    """Half of 200 features are truly exclusive; the rest follow the null, as do 500 of the null."""
    generator = np.random.default_rng(0)
    for level in (0.05, 0.2):
        shares = []
        for _ in range(200):
            fires = np.exp(generator.uniform(3, 9, 200))
            null_fires = np.exp(generator.uniform(3, 9, 500))
            null = _like_the_null(null_fires, generator)
            observed = _like_the_null(fires, generator)
            observed[:100] *= 0.05
            q = false_discovery_q(conditional_p(observed, fires, null, null_fires))
            called = q <= level
            shares.append(called[100:].sum() / max(1, called.sum()))
            assert called[:100].mean() > 0.9
        assert np.mean(shares) <= level


def _like_the_null(fires, generator):
    """Read the worse, and the more variably, the less they fire."""
    rare = 1 / np.log(fires)
    return np.exp(-rare + 0.5 * rare * generator.normal(size=len(fires)))


def test_rare_features_are_compared_with_rare_ones():
    generator = np.random.default_rng(1)
    null_fires = np.exp(generator.uniform(2, 10, 800))
    null = _like_the_null(null_fires, generator)
    rare, frequent = np.array([10.0]), np.array([20_000.0])
    typical = np.exp(-1 / np.log(rare))  # of a rare feature, and strange for a frequent one
    assert conditional_p(typical, rare, null, null_fires)[0] > 0.3
    assert conditional_p(typical, frequent, null, null_fires)[0] < 0.05
