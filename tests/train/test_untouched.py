"""Evaluating and logging change nothing of what is trained, whatever the recipe."""

from collections.abc import Iterator
from typing import Any, get_args

import numpy as np
import pytest
import torch

import train.track
from train.config import RecipeName
from train.loop import train as train_run
from train.steps import Steps
from train.trainee import Trainee

from .conftest import tiny

# What some recipes need to be possible, or to use every piece of their state.
CHANGES: dict[str, dict[str, object]] = {
    "dsf": {"hookpoints": ["a"]},  # its hookpoints must be of one width
    "standard": {"resample_every": 7},
    "p_anneal": {"p_anneal_start": 5, "p_updates": 3},
}


def tensors_in(value: Any, name: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """Every tensor and plain number that hangs on an object of ours, by the way to it."""
    if isinstance(value, torch.Tensor | bool | int | float | str | None):
        yield name, value
        if isinstance(value, torch.Tensor) and value.is_leaf:
            yield f"{name}.grad", value.grad
        return
    if id(value) in seen:
        return
    seen.add(id(value))
    inner: dict[Any, Any] = {}
    if isinstance(value, dict):
        inner = dict(value)
    elif isinstance(value, list | tuple):
        inner = dict(enumerate(value))
    elif type(value).__module__.startswith(("train.", "torch.nn.", "torch.optim.")):
        inner = dict(vars(value))
    for number, (key, one) in enumerate(inner.items()):
        place = f"of tensor {number}" if isinstance(key, torch.Tensor) else key
        yield from tensors_in(one, f"{name}.{place}", seen)


def state_of(trainee: Trainee) -> dict[str, Any]:
    """A copy of all of a trainee's state and of the generators of random numbers.

    Not that of the standard library: beartype, which checks shapes in tests, draws from it.
    """
    found = dict(tensors_in(trainee, "trainee", set()))
    found["torch"] = torch.get_rng_state()
    found["numpy"] = repr(np.random.get_state())
    return {
        name: value.detach().clone() if isinstance(value, torch.Tensor) else value
        for name, value in found.items()
    }


def assert_equal(after: dict[str, Any], before: dict[str, Any]) -> None:
    assert after.keys() == before.keys()
    for name, value in before.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(after[name], value), name
        else:
            assert after[name] == value, name


@pytest.mark.parametrize("recipe", get_args(RecipeName))
def test_evaluating_and_logging_change_no_training_state(store, tmp_path, monkeypatch, recipe):
    evaluate, log = train.track.evaluate, Steps._log
    trainees: list[Trainee] = []
    checked = []

    def keep(self, activations, step, wrapped=Trainee.step):
        trainees[:] = [self]
        return wrapped(self, activations, step)

    def watched(dictionary, batches):
        before = state_of(trainees[0])
        assert dictionary is trainees[0].dictionary
        found = evaluate(dictionary, batches)
        assert_equal(state_of(trainees[0]), before)
        checked.append("validation")
        return found

    def watched_log(self):
        before = state_of(trainees[0])
        log(self)
        assert_equal(state_of(trainees[0]), before)
        checked.append("log")

    monkeypatch.setattr(Trainee, "step", keep)
    monkeypatch.setattr(train.track, "evaluate", watched)
    monkeypatch.setattr(Steps, "_log", watched_log)
    short = {"steps": 30, "threshold_start": 5, "k_anneal_steps": 10, "decay_start": 20}
    config = tiny(**short, validate_every=10, dead_after_rows=128, recipes=[recipe])
    config = tiny(**{**config.model_dump(), **CHANGES.get(recipe, {})})
    train_run(store, config, tmp_path)
    assert checked.count("validation") == 3
    assert checked.count("log") == 6


def test_the_walk_over_a_trainee_finds_what_a_step_changes(store, tmp_path, monkeypatch):
    """Or nothing above would be shown."""
    states = []

    def keep(self, activations, step, wrapped=Trainee.step):
        if step == 7:
            states.append(state_of(self))
        found = wrapped(self, activations, step)
        if step == 7:
            states.append(state_of(self))
        return found

    monkeypatch.setattr(Trainee, "step", keep)
    train_run(store, tiny(steps=9, threshold_start=1), tmp_path)
    before, after = states
    changed = {
        name
        for name, value in after.items()
        if isinstance(value, torch.Tensor) and not torch.equal(value, before[name])
    }
    assert any("exp_avg_sq" in name for name in changed)
    assert any("rows_since_fired" in name for name in changed)
    assert any("threshold" in name for name in changed)
    assert any(name.endswith("b_enc") for name in changed)
