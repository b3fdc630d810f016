"""Interrupted runs, inside this process; test_resume kills real ones."""

import errno
import json
import shutil
import signal
from pathlib import Path

import pytest
import safetensors.torch

import train.checkpoint
from pipeline.errors import DictionaryError
from store.reader import Store
from train.checkpoint import saved_steps
from train.config import TrainConfig
from train.loop import train as train_run

from . import conftest

BOTH = ["dfc", "batch_topk_crosscoder"]


def tiny(**changes: object) -> TrainConfig:
    return conftest.tiny(**{"steps": 40, "decay_start": 30, **changes})


class KilledError(Exception):
    pass


def run_until(store: Store, config: TrainConfig, folder: Path, step: int) -> None:
    """Trains until `step` steps are done and then stops without a word."""

    def on_step(done: int, note: str) -> None:
        if done == step:
            raise KilledError

    with pytest.raises(KilledError):
        train_run(store, config, folder, on_step)


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def lines(folder: Path) -> list[dict]:
    """metrics.jsonl without the times, which differ from run to run."""
    read = [json.loads(line) for line in (folder / "metrics.jsonl").read_bytes().splitlines()]
    return [{k: v for k, v in line.items() if k != "rows_per_second"} for line in read]


def beside(folder: Path) -> Path:
    return folder.with_name("dictionary-batch_topk_crosscoder")


@pytest.fixture(scope="module")
def undisturbed(store_path, tmp_path_factory) -> Path:
    """The folder of a run of both recipes that nothing interrupted."""
    folder = tmp_path_factory.mktemp("undisturbed") / "dictionary"
    train_run(Store(store_path), tiny(recipes=BOTH), folder)
    return folder


def assert_same(folder: Path, undisturbed: Path) -> None:
    for mine, theirs in [(folder, undisturbed), (beside(folder), beside(undisturbed))]:
        assert weights(mine) == weights(theirs)
        assert lines(mine) == lines(theirs)


def test_a_second_run_gives_the_same_bytes(store, undisturbed, tmp_path):
    train_run(store, tiny(recipes=BOTH), tmp_path / "dictionary")
    assert_same(tmp_path / "dictionary", undisturbed)


@pytest.mark.parametrize("stops", [[5], [17, 20, 39], [40]])
def test_a_resumed_run_gives_the_same_bytes(store, undisturbed, tmp_path, stops):
    folder = tmp_path / "dictionary"
    for stop in stops:
        run_until(store, tiny(recipes=BOTH), folder, stop)
    train_run(store, tiny(recipes=BOTH), folder)
    assert_same(folder, undisturbed)


def test_running_a_finished_run_again_changes_nothing(store, undisturbed, tmp_path):
    folder = tmp_path / "dictionary"
    for _ in range(2):
        train_run(store, tiny(recipes=BOTH), folder)
    assert_same(folder, undisturbed)


@pytest.mark.parametrize("keep", [1, 2])
def test_a_run_killed_between_the_checkpoints_of_two_dictionaries_gives_the_same_bytes(
    store, undisturbed, tmp_path, keep
):
    config = tiny(recipes=BOTH, keep_checkpoints=2)
    folder = tmp_path / "dictionary"
    run_until(store, config, folder, 33)
    shutil.rmtree(beside(folder) / "checkpoints" / "step_00000030")
    if keep == 1:
        shutil.rmtree(folder / "checkpoints" / "step_00000020")
    train_run(store, config, folder)
    assert_same(folder, undisturbed)


def test_a_recipe_that_is_added_later_leaves_the_finished_one_alone(
    store, undisturbed, tmp_path, monkeypatch
):
    folder = tmp_path / "dictionary"
    train_run(store, tiny(recipes=["dfc"]), folder)
    trained = []
    step = train.trainee.Trainee.step

    def spy(self, activations, number):
        trained.append(self.name)
        return step(self, activations, number)

    monkeypatch.setattr(train.trainee.Trainee, "step", spy)
    train_run(store, tiny(recipes=BOTH), folder)
    assert set(trained) == {"batch_topk_crosscoder"}
    assert_same(folder, undisturbed)


def assert_refused_as_it_was(store: Store, config: TrainConfig, folder: Path, message: str) -> None:
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    with pytest.raises(DictionaryError, match=message) as caught:
        train_run(store, config, folder)
    assert "\n" not in str(caught.value)
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == before


def test_a_folder_is_not_relabelled_with_another_recipe_of_the_same_shape(store, tmp_path):
    folder = tmp_path / "dictionary"
    shape = {"exclusive": {"a": 0, "b": 0}}
    train_run(store, tiny(**shape, recipes=["dfc"]), folder)
    message = (
        f"^{folder}: holds checkpoints of recipe 'dfc', now it would be 'batch_topk_crosscoder'; "
        "name another folder with --out, or start over with --fresh"
    )
    other = tiny(**shape, recipes=["batch_topk_crosscoder"])
    assert_refused_as_it_was(store, other, folder, message)


def test_swapping_the_order_of_recipes_is_refused_by_their_names(store, tmp_path):
    folder = tmp_path / "dictionary"
    run_until(store, tiny(recipes=BOTH), folder, 12)
    message = "holds checkpoints of recipe 'dfc'"
    assert_refused_as_it_was(store, tiny(recipes=BOTH[::-1]), folder, message)


def test_a_checkpoint_of_another_architecture_is_refused_by_what_differs(store, tmp_path):
    folder = tmp_path / "dictionary"
    run_until(store, tiny(), folder, 12)
    file = folder / "checkpoints" / "step_00000010" / "state.json"
    state = json.loads(file.read_text())
    state["architecture"]["dtype"] = "float64"
    file.write_text(json.dumps(state))
    message = "holds checkpoints with dtype 'float64', now 'float32'; name another folder"
    assert_refused_as_it_was(store, tiny(), folder, message)


@pytest.mark.parametrize("how", ["raised", "signalled"])
def test_an_interrupted_run_keeps_every_step_and_ends_with_the_same_bytes(
    store, undisturbed, tmp_path, how
):
    folder = tmp_path / "dictionary"

    def on_step(done: int, note: str) -> None:
        if done == 17 and how == "raised":
            raise KeyboardInterrupt
        if done == 17:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train_run(store, tiny(recipes=BOTH), folder, on_step)
    for place in (folder, beside(folder)):
        assert saved_steps(place / "checkpoints") == [10, 17]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    train_run(store, tiny(recipes=BOTH), folder)
    assert_same(folder, undisturbed)


def test_ctrl_c_within_a_step_waits_for_its_end(store, tmp_path, monkeypatch):
    step = train.trainee.Trainee.step

    def interrupted(self, activations, number):
        if number == 13:
            signal.raise_signal(signal.SIGINT)
        return step(self, activations, number)

    monkeypatch.setattr(train.trainee.Trainee, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_run(store, tiny(), tmp_path / "dictionary")
    assert saved_steps(tmp_path / "dictionary" / "checkpoints") == [10, 14]


def test_a_half_written_checkpoint_is_ignored_and_cleared_away(store, undisturbed, tmp_path):
    folder = tmp_path / "dictionary"
    run_until(store, tiny(recipes=BOTH), folder, 33)
    stray = folder / "checkpoints" / "step_00000038.tmp"
    stray.mkdir()
    (stray / "state.safetensors.tmp").write_bytes(b"half")
    train_run(store, tiny(recipes=BOTH), folder)
    assert_same(folder, undisturbed)
    assert not stray.exists()


def test_only_the_newest_checkpoints_are_kept(undisturbed):
    assert saved_steps(undisturbed / "checkpoints") == [30, 40]


def test_going_on_does_not_write_into_the_checkpoint_it_came_from(store, tmp_path):
    folder = tmp_path / "dictionary"
    run_until(store, tiny(), folder, 21)
    file = folder / "checkpoints" / "step_00000020" / "state.safetensors"
    before = file.read_bytes()
    run_until(store, tiny(), folder, 29)
    assert file.read_bytes() == before


def test_metrics_that_were_deleted_do_not_come_back_as_zero_bytes(store, tmp_path):
    folder = tmp_path / "dictionary"
    run_until(store, tiny(), folder, 33)
    (folder / "metrics.jsonl").unlink()
    train_run(store, tiny(), folder)
    assert lines(folder)[0]["step"] == 35


@pytest.mark.parametrize(
    "changes",
    [
        {"checkpoint_every": 7, "keep_checkpoints": 5},
        {"loader_threads": 1},
        {"validate_every": 9, "log_every": 3, "validation_rows": 50},
    ],
)
def test_settings_that_do_not_touch_the_weights_may_change(store, undisturbed, tmp_path, changes):
    folder = tmp_path / "dictionary"
    run_until(store, tiny(), folder, 33)
    train_run(store, tiny(**changes), folder)
    assert weights(folder) == weights(undisturbed)


@pytest.mark.parametrize(
    ("key", "value"), [("lr", 0.5), ("k", 5), ("seed", 3), ("steps", 70), ("batch_rows", 32)]
)
def test_going_on_with_another_setting_is_refused_by_its_name(store, tmp_path, key, value):
    folder = tmp_path / "dictionary"
    run_until(store, tiny(), folder, 12)
    said = rf"step_00000010: was written with {key} .*, now {value}; restore it, or"
    message = f"{said} start over with --fresh"
    with pytest.raises(DictionaryError, match=message):
        train_run(store, tiny(**{key: value}), folder)


def damaged(store: Store, folder: Path, file: str, content: bytes) -> str:
    run_until(store, tiny(), folder, 12)
    (folder / "checkpoints" / "step_00000010" / file).write_bytes(content)
    with pytest.raises(DictionaryError) as caught:
        train_run(store, tiny(), folder)
    return str(caught.value)


def test_a_truncated_checkpoint_is_refused_by_its_file(store, tmp_path):
    run_until(store, tiny(), tmp_path / "whole", 12)
    file = tmp_path / "whole" / "checkpoints" / "step_00000010" / "state.safetensors"
    message = damaged(store, tmp_path / "cut", file.name, file.read_bytes()[:-10])
    assert f"{tmp_path / 'cut' / 'checkpoints' / 'step_00000010' / file.name}: damaged" in message
    assert "\n" not in message


def test_a_checkpoint_without_all_its_tensors_is_refused_by_its_file(store, tmp_path):
    some = safetensors.torch.save({"dead": safetensors.torch.torch.zeros(40)})
    message = damaged(store, tmp_path, "state.safetensors", some)
    assert "state.safetensors: damaged" in message


@pytest.mark.parametrize("content", [b"", b"[1]", b"{}", b'{"settings": {}, "progress": {}}'])
def test_a_damaged_state_is_refused_by_its_file(store, tmp_path, content):
    assert "state.json: damaged" in damaged(store, tmp_path, "state.json", content)


def test_a_full_disk_leaves_the_older_checkpoint_usable_and_nothing_behind(
    store, undisturbed, tmp_path, monkeypatch
):
    folder = tmp_path / "dictionary"
    run_until(store, tiny(), folder, 22)

    def full(path: Path, buffers: list[bytes]) -> None:
        path.parent.mkdir(parents=True)
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(train.checkpoint, "write_atomic", full)
        with pytest.raises(OSError, match="No space left"):
            train_run(store, tiny(), folder)
    names = sorted(entry.name for entry in (folder / "checkpoints").iterdir())
    assert names == ["best.json", "step_00000010", "step_00000020"]
    train_run(store, tiny(), folder)
    assert weights(folder) == weights(undisturbed)
