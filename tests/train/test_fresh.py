"""`--fresh` starts over."""

import json
from pathlib import Path

import pytest

import train.checkpoint
from pipeline.errors import DictionaryError, StoreError
from train.checkpoint import discard_run, saved_steps
from train.cli import main
from train.loop import train as train_run
from train.source import StoreRows

from .conftest import tiny

SHORT = {"steps": 20, "threshold_start": 1}


def contents(folder: Path) -> dict[str, bytes]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def steps_of(folder: Path) -> list[int]:
    return [
        json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()
    ]


def test_a_fresh_run_is_as_one_into_an_empty_folder(store, tmp_path):
    for name in ("old", "empty"):
        (tmp_path / name).mkdir()
    train_run(store, tiny(lr=0.01, checkpoint_every=7), tmp_path / "old")
    (tmp_path / "old" / "notes.txt").write_text("mine")
    for name in ("old", "empty"):
        train_run(store, tiny(**SHORT), tmp_path / name, fresh=True)
    old, empty = contents(tmp_path / "old"), contents(tmp_path / "empty")
    assert old.pop("notes.txt") == b"mine"
    assert old.keys() == empty.keys()
    assert old["model.safetensors"] == empty["model.safetensors"]
    assert old["config.json"] == empty["config.json"]
    assert steps_of(tmp_path / "old") == steps_of(tmp_path / "empty")


def test_without_fresh_the_same_run_is_gone_on_with(store, tmp_path):
    train_run(store, tiny(**SHORT), tmp_path)
    told: list[int] = []
    train_run(store, tiny(**SHORT), tmp_path, lambda done, note: told.append(done))
    assert told == []
    train_run(store, tiny(**SHORT), tmp_path, lambda done, note: told.append(done), fresh=True)
    assert told == list(range(1, 21))


@pytest.mark.parametrize("what", ["first_batch", "statistics", "wandb"])
def test_nothing_is_removed_if_anything_else_is_refused(store, tmp_path, monkeypatch, what):
    train_run(store, tiny(**SHORT), tmp_path)
    before = contents(tmp_path)

    def refuse(*arguments: object) -> None:
        raise StoreError("no")

    if what == "wandb":
        monkeypatch.setattr("train.metrics._start_wandb", refuse)
    else:
        monkeypatch.setattr(StoreRows, what, refuse)
    with pytest.raises(StoreError):
        train_run(store, tiny(**SHORT), tmp_path, fresh=True)
    assert contents(tmp_path) == before


def test_a_run_in_progress_is_not_removed(store, tmp_path):
    folder = tmp_path / "dictionary"

    def on_step(done: int, note: str) -> None:
        if done == 15:
            with pytest.raises(DictionaryError, match="another training run"):
                train_run(store, tiny(**SHORT), folder, fresh=True)

    train_run(store, tiny(**SHORT), folder, on_step)
    assert saved_steps(folder / "checkpoints") == [10, 20]


def test_killed_while_removing_there_are_all_checkpoints_or_none(store, tmp_path, monkeypatch):
    train_run(store, tiny(**SHORT), tmp_path)
    seen = []

    def killed(path: Path, **options: object) -> None:
        seen.append(saved_steps(tmp_path / "checkpoints"))
        if not options:
            raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(train.checkpoint.shutil, "rmtree", killed)
        with pytest.raises(ZeroDivisionError):
            discard_run(tmp_path)
    assert seen == [[10, 20], []]
    assert not (tmp_path / "config.json").exists()
    train_run(store, tiny(**SHORT), tmp_path, fresh=True)
    assert not list(tmp_path.glob("*.tmp"))


def test_fresh_on_the_command_line(store_path, tmp_path, monkeypatch, capsys):
    def run(*more: str, lr: float = 3e-3) -> tuple[int, str]:
        words = ["train", "run", "--store", str(store_path), "--out", str(tmp_path / "out"), *more]
        for key, value in tiny(**SHORT, lr=lr):
            text = json.dumps(value, default=lambda inner: inner.model_dump())
            words += ["--set", f"train.{key}={text}"]
        monkeypatch.setattr("sys.argv", words)
        with pytest.raises(SystemExit) as stop:
            main()
        return int(stop.value.code or 0), capsys.readouterr().err

    assert run()[0] == 0
    code, err = run(lr=1e-3)
    assert code == 1
    assert "was written with lr 0.003, now 0.001; restore it, or start over with --fresh" in err
    assert run("--fresh", lr=1e-3)[0] == 0
    said = json.loads((tmp_path / "out" / "config.json").read_text())
    assert said["train"]["lr"] == 1e-3
