"""The best checkpoint by held-out loss."""

import json
from pathlib import Path

import pytest
import torch

from store.reader import Store
from train.best import Best, best_from, is_better, read_best, write_best
from train.checkpoint import saved_steps
from train.config import TrainConfig
from train.finished import finished
from train.loop import TrainedDictionary
from train.loop import train as train_run
from train.summary import summary

from .conftest import tiny


class KilledError(Exception):
    pass


def worsening(**changes: object) -> TrainConfig:
    """Learns until step 20; from then on a huge rate makes it worse at every validation."""
    return tiny(
        **{
            "steps": 60,
            "validate_every": 10,
            "checkpoint_every": 5,
            "keep_checkpoints": 2,
            "decay_start": None,
            "auxk_weight": 0.0,
            **changes,
        }
    )


@pytest.fixture(autouse=True)
def spoilt_rate(monkeypatch):
    """The learning rate from step 20 on."""
    monkeypatch.setattr(
        "train.trainee.learning_rate", lambda step, config: 3e-3 if step < 20 else 0.3
    )


def held_out_losses(folder: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["validation"]["loss"] for line in lines if "validation" in line}


def train(store: Store, folder: Path, **changes: object) -> TrainedDictionary:
    (entry,) = train_run(store, worsening(**changes), folder)
    return entry


def test_the_checkpoint_of_the_lowest_held_out_loss_outlives_newer_ones(store, tmp_path):
    folder = tmp_path / "dictionary"
    entry = train(store, folder)
    losses = held_out_losses(folder)
    step = min(losses, key=losses.get)
    assert step == 20
    assert entry.best == read_best(folder / "checkpoints") == Best(20, losses[20])
    assert saved_steps(folder / "checkpoints") == [20, 55, 60]
    marker = json.loads((folder / "checkpoints" / "best.json").read_text())
    assert marker == {"step": 20, "loss": losses[20]}


def test_the_best_checkpoint_is_saved_at_its_validation(store, tmp_path):
    entry = train(store, tmp_path, checkpoint_every=60)
    assert saved_steps(tmp_path / "checkpoints") == [20, 60]
    assert entry.best.step == 20


def test_the_best_is_printed_if_it_is_not_the_last(store, tmp_path):
    folder = tmp_path / "dictionary"
    entry = train(store, folder)
    last = summary(entry).splitlines()[-1]
    assert last == (
        f"  the held-out loss was lowest at step 20: {entry.best.loss:.4g}, now "
        f"{entry.validation.loss:.4g}; kept as {folder}/checkpoints/step_00000020"
    )
    (again,) = finished(worsening(), folder)
    assert again == entry


def test_the_last_is_not_printed_as_the_best(store, tmp_path, monkeypatch):
    monkeypatch.undo()
    entry = train(store, tmp_path / "dictionary")
    assert entry.best.step == 60
    assert len(summary(entry).splitlines()) == 1
    assert saved_steps(tmp_path / "dictionary" / "checkpoints") == [55, 60]


def test_without_keep_best_only_the_newest_are_kept(store, tmp_path):
    entry = train(store, tmp_path, keep_best=False)
    assert entry.best is None
    assert saved_steps(tmp_path / "checkpoints") == [55, 60]
    assert not (tmp_path / "checkpoints" / "best.json").exists()


@pytest.mark.parametrize("stops", [[12], [23, 41], [60]])
def test_a_resumed_run_has_the_same_best(store, tmp_path, stops):
    whole = train(store, tmp_path / "whole")
    for stop in stops:

        def kill(done: int, note: str, stop: int = stop) -> None:
            if done == stop:
                raise KilledError

        with pytest.raises(KilledError):
            train_run(store, worsening(), tmp_path / "killed", kill)
    killed = train(store, tmp_path / "killed")
    assert killed.best == whole.best
    assert saved_steps(tmp_path / "killed" / "checkpoints") == [20, 55, 60]


def test_a_best_checkpoint_that_was_deleted_is_forgotten(store, tmp_path):
    folder = tmp_path / "checkpoints"
    (folder / "step_00000020").mkdir(parents=True)
    assert best_from({"step": 20, "loss": 0.5}, folder) == Best(20, 0.5)
    assert best_from({"step": 10, "loss": 0.4}, folder) is None
    write_best(folder, Best(20, 0.5))
    assert read_best(folder) == Best(20, 0.5)
    write_best(folder, None)
    assert read_best(folder) is None


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"step": "x", "loss": 1}', b"\xff"])
def test_a_damaged_marker_is_none(tmp_path, content):
    (tmp_path / "best.json").write_bytes(content)
    assert read_best(tmp_path) is None


@pytest.mark.parametrize(
    ("loss", "best", "better"),
    [
        (None, None, False),
        (0.5, None, True),
        (float("nan"), None, False),
        (0.5, Best(1, 0.5), False),
        (0.4, Best(1, 0.5), True),
        (0.6, Best(1, 0.5), False),
    ],
)
def test_the_lower_loss_is_better_and_of_equal_ones_the_first(loss, best, better):
    assert is_better(loss, best) is better


def test_the_best_checkpoint_holds_the_weights_of_its_step(store, tmp_path):
    import safetensors.torch

    train(store, tmp_path / "whole")
    short = {"steps": 20, "threshold_start": 1, "k_anneal_steps": 20}
    train(store, tmp_path / "short", **{**short, "threshold_start": 19})
    kept, ended = (
        safetensors.torch.load_file(
            tmp_path / name / "checkpoints" / "step_00000020" / "state.safetensors"
        )
        for name in ("whole", "short")
    )
    assert kept.keys() == ended.keys()
    torch.testing.assert_close(kept["model.W_dec.0"], ended["model.W_dec.0"], rtol=0, atol=0)
