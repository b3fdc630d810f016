"""Where metrics go."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.errors import ConfigError
from train.config import WandbConfig
from train.loop import train
from train.metrics import MetricsLog

from .conftest import tiny

OFFLINE = WandbConfig(mode="offline")


def test_every_line_is_json_and_flushed_at_once(tmp_path):
    with MetricsLog(tmp_path, 0, WandbConfig(), "run") as log:
        for step in range(3):
            log.write({"step": step, "fve": {"a": 0.5}})
            written = (tmp_path / "metrics.jsonl").read_text().splitlines()
            assert json.loads(written[-1]) == {"step": step, "fve": {"a": 0.5}}


def test_a_resumed_log_is_cut_back_to_what_its_checkpoint_knew(tmp_path):
    with MetricsLog(tmp_path, 0, WandbConfig(), "run") as log:
        log.write({"step": 1})
        known = log.bytes_written
        log.write({"step": 2})
    with MetricsLog(tmp_path, known, WandbConfig(), "run") as log:
        log.write({"step": 2, "again": True})
    read = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert read == [{"step": 1}, {"step": 2, "again": True}]


def test_wandb_is_not_even_imported_by_default(store, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb", None)  # importing it would raise
    train(store, tiny(steps=5, threshold_start=1), tmp_path)
    assert capsys.readouterr() == ("", "")


def test_absent_wandb_is_said_in_one_line_and_is_no_error(store, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb", None)
    train(store, tiny(steps=5, threshold_start=1, wandb=OFFLINE), tmp_path)
    note = " ".join(capsys.readouterr().err.split())
    assert note.count("wandb is not installed; metrics go to metrics.jsonl only") == 1
    assert "(pip install 'crossdiff[wandb]')" in note  # the brackets are no markup
    assert (tmp_path / "metrics.jsonl").stat().st_size > 0


def test_wandb_that_refuses_is_an_error_of_one_line_with_its_remedy(tmp_path, monkeypatch):
    class UsageError(Exception):
        pass

    def init(**options: object) -> None:
        raise UsageError("api_key not configured (no-tty).\nCall wandb login")

    fake = SimpleNamespace(init=init, errors=SimpleNamespace(Error=UsageError))
    monkeypatch.setitem(sys.modules, "wandb", fake)
    with pytest.raises(ConfigError) as caught:
        MetricsLog(tmp_path, 0, WandbConfig(mode="online"), "run")
    assert str(caught.value) == (
        "train.wandb.mode: given 'online', but wandb refuses (api_key not configured (no-tty). "
        "Call wandb login); run `wandb login`, or set train.wandb.mode to offline or off"
    )


def test_the_refusals_of_wandb_are_of_the_class_that_is_caught():
    errors = pytest.importorskip("wandb").errors
    assert issubclass(errors.UsageError, errors.Error)
    assert issubclass(errors.CommError, errors.Error)


def test_wandb_offline_keeps_one_run_for_each_dictionary(store_path, tmp_path):
    pytest.importorskip("wandb")
    program = f"""
import sys
from pathlib import Path
from store.reader import Store
from train.config import TrainConfig
from train.loop import train
config = TrainConfig.model_validate_json(sys.argv[1])
train(Store(Path({str(store_path)!r})), config, Path("dictionary"))
"""
    config = tiny(
        steps=5,
        threshold_start=1,
        wandb=OFFLINE,
        recipes=["dfc", "batch_topk_crosscoder"],
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")}
    done = subprocess.run(
        [sys.executable, "-c", program, config.model_dump_json()],
        cwd=tmp_path,
        env={**environment, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for name in ("dictionary", "dictionary-batch_topk_crosscoder"):
        (run,) = Path(tmp_path, name, "wandb").glob("offline-run-*")
        assert len(list(run.glob("*.wandb"))) == 1
