"""SIGTERM and Ctrl-C, inside this process; test_killed stops real ones."""

import json
import signal
from pathlib import Path

import pytest

import train.trainee
from train.checkpoint import saved_steps
from train.interrupt import PostponedStop, postponed_stop, sigterm_raises, stop_now
from train.loop import train as train_run
from train.source import StoreRows

from .conftest import tiny

HOW = [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]


@pytest.mark.parametrize(("number", "raised"), HOW)
def test_a_signal_waits_until_it_is_asked_for(number, raised):
    done = []

    def work() -> None:
        with postponed_stop() as stop:
            signal.raise_signal(number)
            assert not stop.hurried
            with pytest.raises(raised):
                stop.raise_if_set()
            done.append("all of it")

    with pytest.raises(raised) as caught:
        work()
    assert done
    if raised is SystemExit:
        assert caught.value.code == 143


@pytest.mark.parametrize(("number", "raised"), HOW)
def test_a_second_signal_does_not_wait(number, raised):
    stop = PostponedStop()
    stop.note(number, None)
    with pytest.raises(raised):
        stop.note(number, None)
    assert stop.hurried


@pytest.mark.parametrize(("number", "raised"), HOW)
def test_where_nothing_is_half_done_a_signal_does_not_wait(number, raised):
    stop = PostponedStop()
    with pytest.raises(raised), stop.at_once():
        stop.note(number, None)
    assert not stop.hurried


def test_a_signal_that_came_before_ends_the_wait_before_it_begins():
    stop = PostponedStop()
    stop.note(signal.SIGTERM, None)
    begun = False
    with pytest.raises(SystemExit), stop.at_once():
        begun = True
    assert not begun


def test_signals_are_handled_as_before_afterwards():
    with sigterm_raises():
        with postponed_stop():
            pass
        assert signal.getsignal(signal.SIGTERM) is stop_now
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("handler", [signal.SIG_IGN, lambda number, frame: None])
def test_what_is_ignored_or_handled_by_others_stays_so(handler):
    before = signal.signal(signal.SIGTERM, handler)
    try:
        with sigterm_raises(), postponed_stop() as stop:
            signal.raise_signal(signal.SIGTERM)
            stop.raise_if_set()
            assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, before)


def outcome(folder: Path) -> tuple[bytes, list[dict]]:
    """Weights, and the log without times."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line.pop("rows_per_second", None)
    return (folder / "model.safetensors").read_bytes(), lines


@pytest.fixture(scope="module")
def undisturbed(store_path, tmp_path_factory) -> Path:
    from store.reader import Store

    folder = tmp_path_factory.mktemp("undisturbed") / "dictionary"
    train_run(Store(store_path), tiny(), folder)
    return folder


def test_sigterm_within_a_step_saves_what_it_has_done(store, tmp_path, monkeypatch, undisturbed):
    step = train.trainee.Trainee.step

    def stopped(self, activations, number):
        if number == 16:
            signal.raise_signal(signal.SIGTERM)
        return step(self, activations, number)

    with monkeypatch.context() as patch:
        patch.setattr(train.trainee.Trainee, "step", stopped)
        with pytest.raises(SystemExit) as caught:
            train_run(store, tiny(), tmp_path)
    assert caught.value.code == 143
    assert saved_steps(tmp_path / "checkpoints") == [10, 17]
    train_run(store, tiny(), tmp_path)
    assert outcome(tmp_path) == outcome(undisturbed)


def test_a_second_sigterm_saves_nothing(store, tmp_path, monkeypatch):
    step = train.trainee.Trainee.step

    def stopped(self, activations, number):
        if number == 16:
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)
        return step(self, activations, number)

    monkeypatch.setattr(train.trainee.Trainee, "step", stopped)
    with pytest.raises(SystemExit):
        train_run(store, tiny(), tmp_path)
    assert saved_steps(tmp_path / "checkpoints") == [10]


@pytest.mark.parametrize("batch", [0, 2])
@pytest.mark.parametrize("step", [20, 40])
def test_a_validation_is_cut_short_and_made_up_for(
    store, tmp_path, monkeypatch, undisturbed, step, batch
):
    validation = StoreRows.validation
    seen = []

    def stopped(self):
        seen.append(None)
        for number, rows in enumerate(validation(self)):
            if len(seen) == step // 20 and number == batch:
                signal.raise_signal(signal.SIGTERM)
            yield rows

    with monkeypatch.context() as patch:
        patch.setattr(StoreRows, "validation", stopped)
        with pytest.raises(SystemExit):
            train_run(store, tiny(), tmp_path)
    assert saved_steps(tmp_path / "checkpoints")[-1] == step
    log = (tmp_path / "metrics.jsonl").read_text()
    assert log.count('"validation"') == step // 20 - 1
    train_run(store, tiny(), tmp_path)
    assert outcome(tmp_path) == outcome(undisturbed)


def test_a_wait_for_rows_is_not_waited_out(store, tmp_path, monkeypatch, undisturbed):
    rows = StoreRows.__iter__

    def waiting(self):
        for batch in rows(self):
            if self.batches_taken == 14:
                self._loader.batches_taken -= 1  # it has not been handed over
                signal.raise_signal(signal.SIGTERM)
                pytest.fail("it was waited out")
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(StoreRows, "__iter__", waiting)
        with pytest.raises(SystemExit):
            train_run(store, tiny(), tmp_path)
    assert saved_steps(tmp_path / "checkpoints") == [10, 13]
    train_run(store, tiny(), tmp_path)
    assert outcome(tmp_path) == outcome(undisturbed)


def test_nothing_is_saved_where_nothing_was_done(store, tmp_path, monkeypatch):
    def waiting(self):
        signal.raise_signal(signal.SIGTERM)
        yield

    monkeypatch.setattr(StoreRows, "__iter__", waiting)
    with pytest.raises(SystemExit):
        train_run(store, tiny(), tmp_path)
    assert saved_steps(tmp_path / "checkpoints") == []


@pytest.mark.parametrize("place", ["first_batch", "statistics", "provenance"])
def test_sigterm_before_the_first_step_or_after_the_last_is_one_line(
    store_path, tmp_path, monkeypatch, capsys, place
):
    from train.cli import main

    monkeypatch.setattr(StoreRows, place, lambda *args: signal.raise_signal(signal.SIGTERM))
    words = ["train", "run", "--store", str(store_path), "--out", str(tmp_path / "out")]
    for key, value in tiny(steps=5, threshold_start=1):
        text = json.dumps(value, default=lambda inner: inner.model_dump())
        words += ["--set", f"train.{key}={text}"]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 143
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert lines == ["error: stopped by SIGTERM; run the same command again to continue"]


class Exchange:
    """Ranks of which this one is sent a signal while they tell each other what has come."""

    def __init__(self, stop: PostponedStop) -> None:
        self.stop, self.sent = stop, [signal.SIGTERM, None]

    def largest(self, number: int) -> int:
        come = self.sent.pop(0)
        if come is not None:
            self.stop.note(come, None)
        return number


def test_a_signal_that_comes_while_ranks_share_is_shared_the_next_time():
    stop = PostponedStop()
    stop.together = True
    ranks = Exchange(stop)
    stop.share(ranks)
    stop.raise_if_shared()  # the others do not know of it yet
    stop.share(ranks)
    with pytest.raises(SystemExit, match="143"):
        stop.raise_if_shared()
