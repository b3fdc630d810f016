import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from train.recipes.p_anneal import RECENT, PAnneal, PSchedule
from train.recipes.penalty import lp

from .dense_codes import codes_of, random

SCHEDULE = PSchedule(1.0, 0.2, first_step=40, last_step=120, updates=4)


def test_p_falls_in_equal_changes_at_equal_distances():
    p = [SCHEDULE.p(step) for step in range(200)]
    wanted = [1.0] * 60 + [0.8] * 20 + [0.6] * 20 + [0.4] * 20 + [0.2] * 80
    assert p == pytest.approx(wanted)
    assert [step for step in range(200) if SCHEDULE.is_change(step)] == [60, 80, 100, 120]
    assert [SCHEDULE.next_p(step) for step in (0, 60, 119)] == pytest.approx([0.8, 0.6, 0.2])
    assert SCHEDULE.next_p(120) is None


@given(first=st.integers(0, 50), length=st.integers(1, 60), data=st.data())
def test_there_are_as_many_changes_as_asked_for_and_the_last_is_at_the_last_step(
    first, length, data
):
    updates = data.draw(st.integers(1, length))
    schedule = PSchedule(0.9, 0.3, first, first + length, updates)
    changes = [step for step in range(200) if schedule.is_change(step)]
    assert len(changes) == updates
    assert changes[-1] == first + length
    assert schedule.p(0) == 0.9
    assert schedule.p(first + length) == 0.3
    for step in range(200):
        if schedule.is_change(step + 1):
            assert schedule.p(step + 1) == schedule.next_p(step)


def test_more_changes_than_steps_are_refused():
    with pytest.raises(ConfigError, match=r"p_updates: 9 changes .* steps 4 and 10; at most 6"):
        PSchedule(1.0, 0.2, 4, 10, 9)


def batch(step: int) -> torch.Tensor:
    return random(6, 5, seed=step).relu()


def trained(anneal: PAnneal, steps: range) -> list[float]:
    weights = []
    for step in steps:
        p = anneal.begin(step)
        codes = codes_of("sparse", batch(step))
        following = anneal.schedule.next_p(step)
        if following is not None:
            anneal.record(step, lp(codes, p), lp(codes, following))
        weights.append(float(anneal.weight))
    return weights


def mean_power(p: float, steps: range) -> float:
    return sum(float(batch(s)[batch(s) > 0].pow(p).sum()) / 6 for s in steps) / len(steps)


def test_each_change_keeps_the_penalty_on_the_last_ten_batches():
    found = trained(PAnneal(SCHEDULE, 0.5, dtype=torch.float64), range(140))
    weight, wanted = 0.5, []
    levels = {60: (1.0, 0.8), 80: (0.8, 0.6), 100: (0.6, 0.4), 120: (0.4, 0.2)}
    for step in range(140):
        if step in levels:
            old, new = levels[step]
            recent = range(step - RECENT, step)
            weight *= mean_power(old, recent) / mean_power(new, recent)
        wanted.append(weight)
    assert found == pytest.approx(wanted)
    assert len({round(value, 9) for value in found}) == 5


def test_changes_closer_than_ten_steps_use_only_batches_of_their_own_p():
    schedule = PSchedule(1.0, 0.2, first_step=10, last_step=18, updates=2)
    found = trained(PAnneal(schedule, 1.0, dtype=torch.float64), range(20))
    first = mean_power(1.0, range(4, 14)) / mean_power(0.6, range(4, 14))
    second = first * mean_power(0.6, range(14, 18)) / mean_power(0.2, range(14, 18))
    assert found[13:19] == pytest.approx([1.0, *[first] * 4, second])


@pytest.mark.parametrize("stop", [3, 55, 60, 61, 79, 119])
def test_a_run_goes_on_bit_exactly_from_its_tensors(stop):
    whole = PAnneal(SCHEDULE, 0.5)
    trained(whole, range(130))
    first = PAnneal(SCHEDULE, 0.5)
    trained(first, range(stop))
    kept = first.tensors()
    trained(first, range(stop, stop + 2))  # what is kept does not change with the run
    second = PAnneal(SCHEDULE, 7.0)
    second.load(kept)
    trained(second, range(stop, 130))
    for name, tensor in whole.tensors().items():
        assert torch.equal(second.tensors()[name], tensor), name


def test_the_weight_stays_without_codes_and_after_a_batch_that_is_not_finite():
    anneal = PAnneal(SCHEDULE, 0.5)
    nothing = torch.tensor(0.0)
    for step in range(50, 60):
        anneal.record(step, nothing, nothing)
    anneal.record(59, torch.tensor(float("nan")), torch.tensor(1.0))
    anneal.begin(60)
    assert float(anneal.weight) == 0.5
