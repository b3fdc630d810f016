"""Runs that are past saving, and bad batches that are skipped."""

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import DictionaryError
from store.reader import Store
from train.checkpoint import saved_steps
from train.config import TrainConfig
from train.divergence import DIVERGED, LossWatch, diverged, not_finite
from train.loop import train as train_run
from train.step_metrics import StepMetrics
from train.trainee import Trainee

from .conftest import tiny


def result(loss: float = 1.0, gradient: float = 1.0, **terms: float) -> StepMetrics:
    values = {name: torch.tensor(value) for name, value in (terms or {"x": loss}).items()}
    return StepMetrics(
        torch.tensor(loss), values, torch.ones(2), torch.tensor(3.0), torch.tensor(gradient)
    )


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        (result(), None),
        (result(math.nan, reconstruction=1.0, auxk=math.nan), "the auxk term of the loss is nan"),
        (result(math.inf, reconstruction=math.inf), "the reconstruction term of the loss is inf"),
        (result(math.inf, reconstruction=1.0), "the loss is inf"),
        (result(gradient=math.nan), "the gradient's norm is nan"),
    ],
)
def test_what_is_not_finite_is_named(given, wrong):
    assert not_finite(given) == wrong


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=30), st.floats(1e-6, 1e12))
def test_a_loss_has_diverged_only_above_the_first_and_a_thousand_times_the_lowest_running_one(
    logged, loss
):
    watch, running, lowest = LossWatch(), logged[0], logged[0]
    for value in logged:
        watch.take(value)
    for value in logged[1:]:
        running = 0.9 * running + 0.1 * value
        lowest = min(lowest, running)
    expected = loss > logged[0] and loss > 1e3 * lowest
    assert watch.diverged(loss) == expected or loss == pytest.approx(1e3 * lowest)


def test_the_first_loss_is_never_a_divergence_and_one_that_is_not_finite_is_not_taken():
    watch = LossWatch()
    assert not watch.diverged(1e30)
    watch.take(math.nan)
    assert watch == LossWatch()
    watch.take(2.0)
    watch.take(math.inf)
    assert watch == LossWatch(2.0, 2.0, 2.0)


def test_a_divergence_names_the_largest_term():
    watch = LossWatch(1.0, 1.0, 0.5)
    assert diverged(result(DIVERGED), watch) is not None
    found = diverged(result(600.0, reconstruction=100.0, auxk=500.0), watch)
    assert found == "the loss has diverged to 600 from 0.5 (its largest term is auxk, 500)"
    assert diverged(result(499.0), watch) is None


def spoil(monkeypatch, at: set[int], value: float = math.nan) -> None:
    """Gives the trainee batches with one value spoilt at these steps, which the store has not."""
    step = Trainee.step

    def spoilt(self, activations, number):
        if number in at:
            activations = {name: x.clone() for name, x in activations.items()}
            activations["b"][0, 0] = value
        return step(self, activations, number)

    monkeypatch.setattr(Trainee, "step", spoilt)


def refused(store: Store, config: TrainConfig, folder: Path) -> str:
    with pytest.raises(DictionaryError) as caught:
        train_run(store, config, folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_nan_stops_the_run_with_step_term_and_last_good_checkpoint(store, tmp_path, monkeypatch):
    spoil(monkeypatch, {22})
    folder = tmp_path / "dictionary"
    message = refused(store, tiny(), folder)
    assert message == (
        f"{folder}: dfc: the reconstruction term of the loss is nan at step 23; "
        f"go on from the last good checkpoint, {folder}/checkpoints/step_00000020, "
        "with train.skip_bad_batches, or lower train.lr and start over with --fresh"
    )


@pytest.mark.parametrize("saved", ["checkpoint_every", "validate_every"])
def test_a_bad_step_is_never_saved(store, tmp_path, monkeypatch, saved):
    """No line is logged between the bad batch and the checkpoint."""
    spoil(monkeypatch, {20})
    every = {"checkpoint_every": 1000, "validate_every": 1000, saved: 3, "log_every": 1000}
    message = refused(store, tiny(**every), tmp_path)
    assert " at step 21; " in message
    steps = saved_steps(tmp_path / "checkpoints")
    assert steps[-1] == 18
    assert f"step_{steps[-1]:08d}" in message


def test_weights_that_a_finite_loss_hides_are_not_saved(store, tmp_path, monkeypatch):
    step = Trainee.step

    def spoilt(self, activations, number):
        found = step(self, activations, number)
        if number == 19:
            with torch.no_grad():
                self.dictionary.b_enc[3] = torch.inf
        return found

    monkeypatch.setattr(Trainee, "step", spoilt)
    message = refused(store, tiny(validate_every=1000), tmp_path)
    assert ": the weights b_enc are not finite at step 20; go on from the last good" in message
    assert saved_steps(tmp_path / "checkpoints") == [10]


def test_a_bad_step_is_not_saved_at_an_interrupt(store, tmp_path, monkeypatch):
    spoil(monkeypatch, {12})

    def on_step(done: int, note: str) -> None:
        if done == 13:
            raise KeyboardInterrupt

    with pytest.raises(DictionaryError, match=r"is nan at step 13"):
        train_run(store, tiny(), tmp_path, on_step)
    assert saved_steps(tmp_path / "checkpoints") == [10]


def test_a_diverging_loss_stops_the_run(store, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "train.trainee.learning_rate", lambda step, config: 3e-3 + 1e3 * (step > 30)
    )
    folder = tmp_path / "dictionary"
    message = refused(store, tiny(gradient_clip=1e9), folder)
    assert "the loss has diverged to " in message
    assert "its largest term is reconstruction" in message
    assert f"{folder}/checkpoints/step_00000030" in message


def test_a_run_that_diverges_before_its_first_logged_line_is_stopped_there(store, tmp_path):
    settings = {"lr": 1e4, "warmup_steps": 0, "log_every": 20, "checkpoint_every": 60}
    message = refused(store, tiny(gradient_clip=1e9, **settings), tmp_path / "dictionary")
    assert "the loss has diverged to " in message
    assert "at step 20" in message
    assert "there is no checkpoint yet" in message


def lines(folder: Path) -> list[dict]:
    read = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in read if "loss" in line]


def test_bad_batches_are_skipped_and_counted(store, tmp_path, monkeypatch):
    spoil(monkeypatch, {7, 22, 24})
    notes = []
    config = tiny(skip_bad_batches=3)
    train_run(store, config, tmp_path, lambda done, note: notes.append(note))
    counts = [line["bad_batches"] for line in lines(tmp_path)]
    assert counts == [0, 1, 1, 1, *[3] * 8]
    assert lines(tmp_path)[4]["loss"] is None  # step 25 is batch 24
    assert lines(tmp_path)[-1]["loss"] > 0
    assert "bad batches 3" in notes[-1]


def test_one_bad_batch_too_many_stops_the_run(store, tmp_path, monkeypatch):
    spoil(monkeypatch, {7, 22, 24})
    message = refused(store, tiny(skip_bad_batches=2), tmp_path)
    assert (
        "the reconstruction term of the loss is nan at step 23, one of 3 bad batches where "
        "train.skip_bad_batches is 2; go on from"
    ) in message


def test_the_count_of_bad_batches_survives_a_kill(store, tmp_path, monkeypatch):
    spoil(monkeypatch, {7, 22, 24})

    def kill(done: int, note: str) -> None:
        if done == 23:
            raise ZeroDivisionError

    config = tiny(skip_bad_batches=3)
    with pytest.raises(ZeroDivisionError):
        train_run(store, config, tmp_path / "killed", kill)
    train_run(store, config, tmp_path / "killed")
    train_run(store, config, tmp_path / "whole")
    ends = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("killed", "whole")]
    assert ends[0] == ends[1]
    assert lines(tmp_path / "killed")[-1]["bad_batches"] == 3


def test_skipping_changes_nothing_where_no_batch_is_bad(store, tmp_path):
    train_run(store, tiny(skip_bad_batches=9), tmp_path / "skips")
    train_run(store, tiny(), tmp_path / "plain")
    ends = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("skips", "plain")]
    assert ends[0] == ends[1]
