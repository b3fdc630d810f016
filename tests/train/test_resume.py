"""Real processes, really killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SETTINGS = {
    "recipes": "[dfc, batch_topk_crosscoder]",
    "features": 64,
    "exclusive": "{a: 0.2, b: 0.2}",
    "k": 4,
    "k_start": 12,
    "k_anneal_steps": 100,
    "steps": 240,
    "batch_rows": 64,
    "lr": 3e-3,
    "warmup_steps": 50,
    "decay_start": 180,
    "dead_after_rows": 1000,
    "window_chunks": 4,
    "validation_fraction": 0.2,
    "validate_every": 60,
    "log_every": 1,
    "checkpoint_every": 30,
}
DEADLINE = 60  # seconds for one process to reach its step
# Threads that wait asleep: spinning ones take the cores from each other on a busy machine.
ENVIRONMENT = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}


def command(store: Path, out: Path) -> list[str]:
    words = [sys.executable, "-m", "train", "run", "--store", str(store), "--out", str(out)]
    for key, value in SETTINGS.items():
        words += ["--set", f"train.{key}={value}"]
    return words


def run(store: Path, out: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(store, out),
        cwd=out.parent,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )


def last_step(out: Path) -> int:
    """The last step of which the log has a whole line."""
    try:
        whole = (out / "metrics.jsonl").read_bytes().rpartition(b"\n")[0]
    except FileNotFoundError:
        return 0
    return json.loads(whole.rpartition(b"\n")[2])["step"] if whole else 0


def kill_behind(store: Path, out: Path, step: int) -> int:
    """Starts the run, kills it once it has logged `step`, and returns the step it had reached."""
    process = subprocess.Popen(
        command(store, out),
        cwd=out.parent,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + DEADLINE
    while last_step(out) < step and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    return last_step(out)


def outputs(out: Path) -> dict[str, bytes]:
    folders = [out, out.with_name(f"{out.name}-batch_topk_crosscoder")]
    return {
        f"{folder.name}/{name}": (folder / name).read_bytes()
        for folder in folders
        for name in ("model.safetensors", "config.json")
    }


@pytest.fixture(scope="module")
def runs(store_path: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders of an undisturbed run and of one that was killed three times."""
    root = tmp_path_factory.mktemp("killed")
    for name in ("whole", "killed"):
        (root / name).mkdir()
    whole, killed = root / "whole" / "dictionary", root / "killed" / "dictionary"
    done = run(store_path, whole)
    assert done.returncode == 0, done.stderr
    reached = [kill_behind(store_path, killed, step) for step in (17, 81, 160)]
    assert reached == sorted(reached)
    assert reached[-1] < SETTINGS["steps"]
    assert not (killed / "model.safetensors").exists()
    done = run(store_path, killed)
    assert done.returncode == 0, done.stderr
    return whole, killed


def test_a_run_that_was_killed_three_times_ends_with_the_same_bytes(runs):
    whole, killed = runs
    assert outputs(whole) == outputs(killed)


@pytest.mark.parametrize("name", ["dictionary", "dictionary-batch_topk_crosscoder"])
def test_the_log_of_a_run_that_was_killed_has_every_step_once(runs, name):
    file = runs[1].with_name(name) / "metrics.jsonl"
    read = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["step"] for line in read if "loss" in line] == list(range(1, 241))
    assert [line["step"] for line in read if "validation" in line] == [60, 120, 180, 240]
