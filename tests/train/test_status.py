"""The state of a run, told from its files."""

import json
import subprocess
import sys

import pytest

from store.reader import Store
from train.config import TrainConfig
from train.lock import is_locked, locked
from train.loop import train
from train.status import status

from .conftest import write_store

SETTINGS = {
    "recipes": ["dfc", "batch_topk_crosscoder"],
    "features": 32,
    "exclusive": {"a": 4, "b": 4},
    "k": 4,
    "steps": 20,
    "batch_rows": 64,
    "warmup_steps": 2,
    "threshold_start": 5,
    "checkpoint_every": 10,
    "log_every": 5,
    "validate_every": 20,
    "device": "cpu",
}


def config(**changes):
    return TrainConfig.model_validate({**SETTINGS, **changes})


class Killed(Exception):
    pass


def stop_at(step):
    def on_step(done, note):
        if done == step:
            raise Killed

    return on_step


@pytest.fixture(scope="module")
def trained(store_path, tmp_path_factory):
    folder = tmp_path_factory.mktemp("status") / "dictionary"
    train(Store(store_path), config(), folder)
    return folder


def test_what_is_trained_to_its_end_is_complete(trained, store_path):
    found = status(config(), trained, store_path)
    assert found.complete
    assert [one.name for one in found.dictionaries] == SETTINGS["recipes"]
    for one in found.dictionaries:
        assert (one.state, one.step, one.steps, one.saved_step) == ("complete", 20, 20, 20)
        assert one.rows_per_second > 0
        assert one.silent_seconds < 600
        assert one.loss > 0


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"lr": 0.5}, "train.lr was None, now 0.5"),
        ({"steps": 30}, "train.steps was 20, now 30"),
        ({"device": "auto", "log_every": 3, "checkpoint_every": 7}, None),
    ],
)
def test_another_configuration_outdates_it_unless_nothing_depends_on_it(
    trained, store_path, changes, reason
):
    found = status(config(**changes), trained, store_path)
    assert found.complete is (reason is None)
    assert {one.reason for one in found.dictionaries} == {reason}
    assert {one.state for one in found.dictionaries} == {"outdated" if reason else "complete"}


def test_another_store_outdates_it(trained, tmp_path):
    other = write_store(tmp_path / "other.zarr", seed=5)
    found = status(config(), trained, other)
    assert [one.reason for one in found.dictionaries] == ["the store holds other rows"] * 2
    assert status(config(), trained, tmp_path / "none").complete  # nothing to compare with


def test_a_run_that_was_cut_short_has_stopped_where_it_saved(store_path, tmp_path):
    folder = tmp_path / "dictionary"
    assert {one.state for one in status(config(), folder).dictionaries} == {"not begun"}
    with pytest.raises(Killed):
        train(Store(store_path), config(), folder, stop_at(17))
    found = status(config(), folder, store_path)
    assert not found.complete
    for one in found.dictionaries:
        assert (one.state, one.saved_step, one.step, one.seconds_left) == ("stopped", 10, 15, None)


def test_a_run_that_goes_on_is_seen_by_its_lock(store_path, tmp_path):
    folder = tmp_path / "dictionary"
    seen = []

    def on_step(done, note):
        if done == 15:
            seen.append(status(config(), folder, store_path))

    train(Store(store_path), config(), folder, on_step)
    (found,) = seen
    for one in found.dictionaries:
        assert (one.state, one.step) == ("running", 15)
        assert one.seconds_left == pytest.approx(5 * 64 / one.rows_per_second)
    assert not is_locked(folder)
    with locked(folder):
        assert is_locked(folder)


def test_the_command_says_it_in_a_table_and_as_json(trained, store_path, tmp_path):
    (tmp_path / "empty.yaml").write_text("{}")
    words = [sys.executable, "-m", "train", "status", "--config", tmp_path / "empty.yaml"]
    words += ["--store", store_path, "--out", trained]
    for key, value in SETTINGS.items():
        words += ["--set", f"train.{key}={json.dumps(value)}"]
    done = subprocess.run([*map(str, words), "--json"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["complete"] is True
    done = subprocess.run(
        [*map(str, words), "--set", "train.k=5"], capture_output=True, text=True, check=True
    )
    assert "outdated" in done.stdout
    assert "train.k was 4, now 5" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("next: train run --config")
