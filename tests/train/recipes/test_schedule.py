import pytest

from train.recipes.schedule import (
    active_features,
    base_learning_rate,
    is_resample,
    last_resample,
    learning_rate,
    sparsity_warmup,
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


def test_the_rate_warms_up_again_after_each_resampling():
    config = tiny(lr=0.5, warmup_steps=10, decay_start=None, steps=60, resample_every=20)
    since = [t - (0 if t < 20 else 20 if t < 40 else 40) for t in STEPS]
    wanted = [0.5 * min(1, (s + 1) / 10) for s in since]
    assert [learning_rate(t, config) for t in STEPS] == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("every", "steps", "wanted"),
    [
        (None, 60, []),
        (20, 60, [20, 40]),
        (20, 59, [20]),
        (25, 60, [25]),
        (60, 60, []),
        (90, 60, []),
    ],
)
def test_resampling_leaves_time_to_train_what_was_resampled(every, steps, wanted):
    config = tiny(steps=steps, resample_every=every)
    assert [t for t in range(steps) if is_resample(t, config)] == wanted
    for t in range(steps):
        assert last_resample(t, config) == max([s for s in wanted if s <= t], default=0)


def test_the_penaltys_weight_rises_linearly_from_zero():
    config = tiny(sparsity_weight=0.5, sparsity_warmup_steps=20)
    wanted = [0.025 * t if t < 20 else 0.5 for t in STEPS]
    assert [0.5 * sparsity_warmup(t, config) for t in STEPS] == pytest.approx(wanted)
    assert sparsity_warmup(5, config) == pytest.approx(0.25)


def test_without_warm_up_the_penalty_has_its_weight_from_the_first_step():
    assert sparsity_warmup(0, tiny(sparsity_warmup_steps=0)) == 1
