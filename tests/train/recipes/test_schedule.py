import pytest

from train.recipes.schedule import (
    active_features,
    base_learning_rate,
    learning_rate,
    threshold_start,
)

from ..conftest import tiny

STEPS = range(60)


def test_learning_rate_warms_up_stays_and_falls_linearly():
    config = tiny(lr=0.5, warmup_steps=10, decay_start=40, steps=60)
    wanted = [0.05 * (t + 1) if t < 10 else 0.5 if t < 40 else 0.025 * (60 - t) for t in STEPS]
    assert [learning_rate(t, config) for t in STEPS] == pytest.approx(wanted)


def test_learning_rate_is_constant_without_warm_up_and_decay():
    config = tiny(lr=0.5, warmup_steps=0, decay_start=None)
    assert {learning_rate(t, config) for t in STEPS} == {0.5}


@pytest.mark.parametrize(("features", "rate"), [(2**14, 2e-4), (2**16, 1e-4), (2**12, 4e-4)])
def test_default_rate_falls_with_the_root_of_the_features(features, rate):
    assert base_learning_rate(tiny(lr=None, features=features)) == pytest.approx(rate)


def test_k_falls_linearly_from_k_start_to_k():
    config = tiny(features=1000, k=20, k_start=100, k_anneal_steps=40)
    wanted = [100 - 2 * t if t < 40 else 20 for t in STEPS]
    assert [active_features(t, config) for t in STEPS] == wanted


def test_k_is_constant_without_k_start():
    assert {active_features(t, tiny(k=4, k_start=None)) for t in STEPS} == {4}


def test_k_never_exceeds_the_features():
    assert active_features(0, tiny(features=40, k_start=500)) == 40


@pytest.mark.parametrize(("steps", "start"), [(100_000, 1000), (2000, 1000), (60, 30), (1, 0)])
def test_the_threshold_begins_at_step_1000_or_halfway(steps, start):
    assert threshold_start(tiny(threshold_start=None, steps=steps)) == start


def test_a_threshold_that_would_begin_behind_the_last_step_is_refused():
    with pytest.raises(ValueError, match="threshold_start 60 is not before the last of 60 steps"):
        tiny(threshold_start=60, steps=60)
