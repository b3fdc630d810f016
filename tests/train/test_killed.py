"""`train run`, really killed at thirty random instants, ends with the bytes of an undisturbed run.

Each run is a process of its own, forked off one that has imported torch already: its start-up would
be most of every life. A life ends after a random time, whatever the run is doing: it begins, steps,
writes a checkpoint, validates or writes its dictionary.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import safetensors.torch

from train.checkpoint import saved_steps

# Trained in one run: what a step depends on beside the weights is different for each.
RECIPES: list[dict[str, object]] = [
    {"recipe": "dfc"},
    {"recipe": "jump_relu", "sparsity_weight": 0.1, "bandwidth": 0.2, "threshold_init": 0.1},
    {"recipe": "topk", "k": 1, "k_start": 2, "resample_every": 16, "dead_after_rows": 256},
    {"recipe": "p_anneal", "sparsity_weight": 0.1, "p_anneal_start": 20, "p_updates": 12},
]
KILLS = 30
SETTINGS: dict[str, object] = {
    "recipes": RECIPES,
    "features": 64,
    "exclusive": {"a": 0.2, "b": 0.2},
    "k": 4,
    "k_start": 12,
    "k_anneal_steps": 40,
    "steps": 100,
    "batch_rows": 64,
    "lr": 3e-3,
    "warmup_steps": 20,
    "decay_start": 75,
    "dead_after_rows": 1000,
    "threshold_start": 40,
    "window_chunks": 4,
    "validation_fraction": 0.2,
    "validation_rows": 300,
    "validate_every": 20,
    "log_every": 5,
    "checkpoint_every": 8,
}
FORKING = """
import json, os, sys
import torch._dynamo, train.cli, train.loop, store.loader
print("ready", 0, flush=True)
for line in sys.stdin:
    words, errors = json.loads(line)
    child = os.fork()
    if child == 0:
        null = os.open(os.devnull, os.O_RDWR)
        for number, descriptor in ((0, null), (1, null), (2, os.open(errors, os.O_WRONLY))):
            os.dup2(descriptor, number)
        sys.argv = words
        train.cli.main()
    print('process', child, flush=True)
    sys.stdin.readline()  # until then it can be killed without a look at whether it has ended
    print('code', os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Runs:
    """Starts `train run` again and again."""

    def __init__(self, store: Path, root: Path) -> None:
        self.store, self.errors = store, root / "stderr"
        self.errors.touch()
        self._parent = subprocess.Popen(
            [sys.executable, "-c", FORKING],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answer("ready")

    def run(
        self,
        out: Path,
        wait: Callable[[], None] | None = None,
        number: int = signal.SIGKILL,
    ) -> tuple[int, float]:
        """Exit code and seconds of a run, which gets this signal, if any, after this wait."""
        words = ["train", "run", "--store", str(self.store), "--out", str(out)]
        for key, value in SETTINGS.items():
            words += ["--set", f"train.{key}={json.dumps(value)}"]
        self.errors.write_text("")
        print(json.dumps([words, str(self.errors)]), file=self._parent.stdin, flush=True)
        begin = time.monotonic()
        process = self._answer("process")
        if wait is not None:
            wait()
            os.kill(process, number)
        print(file=self._parent.stdin, flush=True)
        return self._answer("code"), time.monotonic() - begin

    def _answer(self, kind: str) -> int:
        """A number, of a kind that is told: a code must never be killed as a process."""
        said, number = self._parent.stdout.readline().split()
        assert said == kind
        return int(number)

    def close(self) -> None:
        self._parent.stdin.close()
        self._parent.wait()
        self._parent.stdout.close()


@pytest.fixture(scope="module")
def runs(store_path, tmp_path_factory) -> Iterator[Runs]:
    found = Runs(store_path, tmp_path_factory.mktemp("killed"))
    yield found
    found.close()


def outputs(out: Path) -> dict[str, bytes]:
    """Weights and descriptions of all dictionaries of a run."""
    return {
        f"{file.parent.name}/{file.name}": file.read_bytes()
        for folder in out.parent.glob(f"{out.name}*")
        for file in folder.glob("*.*")
        if file.name in ("model.safetensors", "config.json")
    }


def logs(out: Path) -> dict[str, list[dict]]:
    """metrics.jsonl of all dictionaries, without times."""
    found = {}
    for file in out.parent.glob(f"{out.name}*/metrics.jsonl"):
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        found[file.parent.name] = [
            {key: value for key, value in line.items() if key != "rows_per_second"}
            for line in lines
        ]
    return found


def marker(out: Path) -> dict[str, object]:
    return json.loads((out / "checkpoints" / "best.json").read_text())


@pytest.fixture(scope="module")
def whole(runs, tmp_path_factory) -> tuple[Path, float]:
    """Folder and duration of an undisturbed run."""
    out = tmp_path_factory.mktemp("whole") / "dictionary"
    code, seconds = runs.run(out)
    assert code == 0, runs.errors.read_text()
    return out, seconds


def assert_same(out: Path, whole: Path) -> None:
    assert outputs(out) == outputs(whole)
    assert logs(out) == logs(whole)
    assert marker(out) == marker(whole)


def test_features_were_resampled_and_thresholds_moved(whole):
    found = logs(whole[0])
    assert len(found) == len(RECIPES)
    (topk,) = [lines for name, lines in found.items() if "topk" in name]
    dead = [line["dead_fraction"] for line in topk if "dead_fraction" in line]
    assert any(later < earlier for earlier, later in pairwise(dead))
    (weights,) = whole[0].parent.glob("*jump_relu*/model.safetensors")
    threshold = safetensors.torch.load_file(weights)["threshold"]
    assert (threshold - 0.1).abs().max() > 1e-3


def test_a_run_killed_at_random_instants_ends_with_the_same_bytes(runs, whole, tmp_path):
    undisturbed, seconds = whole
    random_ = random.Random(0)
    kills, life, resumed = 0, 0, False
    out = tmp_path / f"life{life}" / "dictionary"
    while kills < KILLS:
        code, _ = runs.run(out, lambda: time.sleep(random_.uniform(0, 0.6 * seconds)))
        assert code in (0, -signal.SIGKILL), runs.errors.read_text()
        if code == 0:
            assert_same(out, undisturbed)
            life += 1
            out = tmp_path / f"life{life}" / "dictionary"
        else:
            kills += 1
            resumed |= (out / "checkpoints").exists()
    assert resumed
    assert runs.run(out)[0] == 0, runs.errors.read_text()
    assert_same(out, undisturbed)


def test_a_run_told_to_stop_saves_says_how_to_go_on_and_ends_with_the_same_bytes(
    runs, whole, tmp_path
):
    undisturbed, _ = whole
    out = tmp_path / "dictionary"
    told = 0.0

    def first_line() -> None:
        nonlocal told
        deadline = time.monotonic() + 60
        log = out / "metrics.jsonl"
        while not (log.exists() and log.stat().st_size) and time.monotonic() < deadline:
            time.sleep(0.001)
        told = time.monotonic()

    code, _ = runs.run(out, first_line, signal.SIGTERM)
    assert code == 143, runs.errors.read_text()
    assert time.monotonic() - told < 10
    assert saved_steps(out / "checkpoints")[-1] < SETTINGS["steps"]
    (line,) = [line for line in runs.errors.read_text().splitlines() if line.startswith("error")]
    assert line == "error: stopped by SIGTERM; run the same command again to continue"
    assert runs.run(out)[0] == 0, runs.errors.read_text()
    assert_same(out, undisturbed)
