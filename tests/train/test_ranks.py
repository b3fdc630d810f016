"""Two real processes, started by torchrun and connected by gloo, against one.

Float32 here, and few recipes; test_global_batch compares every kind of step in float64.
"""

import json
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
import safetensors.torch
import torch

from pipeline.errors import ConfigError
from train.checkpoint import saved_steps
from train.ranks import Ranks
from train.source import StoreRows

from .conftest import tiny
from .two_ranks import run

HERE = Path(__file__)
ROOT = HERE.parents[2]
STEPS, HALF = 24, 12
BASE = tiny(
    steps=STEPS,
    decay_start=15,
    auxk=8,
    dead_after_rows=300,
    threshold_start=3,
    k_anneal_steps=10,
    validate_every=10,
    checkpoint_every=10,
    log_every=1,
).model_dump(mode="json")
RECIPES: dict[str, dict[str, object]] = {
    "dfc": {},
    "residual_dfc": {"exclusive": {}, "k_start": None},
    "topk": {"k": 1, "resample_every": 8, "dead_after_rows": 128},
    "jump_relu": {"bandwidth": 0.2, "threshold_init": 0.1, "sparsity_weight": 0.1},
    "crosscoder": {"sparsity_weight": 0.1},
    "p_anneal": {
        "sparsity_weight": 0.1,
        "p_anneal_start": 4,
        "p_updates": 5,
        "outlier_norm": 2.0,
    },
}
TERMS = {"loss", "reconstruction", "sparsity", "auxk", "l0", "gradient_norm"}
RESUMED = ("2 then 1", "1 then 2")


def settings(recipe: str, **changes: object) -> dict[str, object]:
    return {**BASE, "recipes": [recipe], **RECIPES[recipe], **changes}


def torchrun(*words: object, **keywords: object) -> subprocess.Popen[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return subprocess.Popen(
        [*launcher, "--nproc-per-node", "2", *map(str, words)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        **keywords,
    )


@pytest.fixture(scope="module")
def runs(store_path: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder with the runs of one process, and one with those of two."""
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    run(store_path, two / "1 then 2", settings("dfc", stop_at=HALF))
    scenarios = {recipe: settings(recipe) for recipe in RECIPES}
    scenarios["2 then 1"] = settings("dfc", stop_at=HALF)
    scenarios["1 then 2"] = settings("dfc")
    file = two / "scenarios.json"
    file.write_text(json.dumps(scenarios))
    process = torchrun(
        "--local-addr", "127.0.0.1", HERE.with_name("two_ranks.py"), store_path, two, file
    )
    for recipe in RECIPES:
        run(store_path, one / recipe, settings(recipe))
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert saved_steps(two / "2 then 1" / "checkpoints")[-1] == HALF
    run(store_path, two / "2 then 1", settings("dfc"))
    return one, two


def lines(folder: Path, kind: str = "loss") -> list[dict]:
    read = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in read if kind in line]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(folder / "model.safetensors")


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def partner(name: str) -> str:
    return "dfc" if name in RESUMED else name


@pytest.mark.parametrize("name", [*RECIPES, *RESUMED])
def test_two_processes_have_the_losses_of_one(runs, name):
    wanted, found = lines(runs[0] / partner(name)), lines(runs[1] / name)
    assert [line["step"] for line in found] == list(range(1, STEPS + 1))
    for one, other in zip(wanted, found, strict=True):
        assert other.keys() == one.keys()
        for key in TERMS & one.keys():
            assert other[key] == pytest.approx(one[key], rel=1e-4), (key, one["step"])
        assert other["fve"] == pytest.approx(one["fve"], rel=1e-4, abs=1e-4)
        assert other["dead_fraction"] == one["dead_fraction"]


@pytest.mark.parametrize("name", [*RECIPES, *RESUMED])
def test_two_processes_end_with_the_weights_of_one(runs, name):
    wanted, found = weights(runs[0] / partner(name)), weights(runs[1] / name)
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        torch.testing.assert_close(found[key], value, rtol=1e-3, atol=1e-4, msg=key)


def test_dead_features_and_resampling_took_part(runs):
    assert any("auxk" in line for line in lines(runs[1] / "dfc"))
    dead = [line["dead_fraction"] for line in lines(runs[1] / "topk")]
    assert any(later < earlier for earlier, later in pairwise(dead))


@pytest.mark.parametrize("name", [*RECIPES, *RESUMED])
def test_two_processes_write_the_files_of_one(runs, name):
    wanted = [file for file in files(runs[0] / partner(name)) if "step_" not in file]
    assert [file for file in files(runs[1] / name) if "step_" not in file] == wanted
    steps = [line["step"] for line in lines(runs[1] / name, "validation")]
    assert steps == [10, 20, STEPS]


def test_a_checkpoint_does_not_tell_how_many_processes_wrote_it(runs):
    one, two = (place / "dfc" / "checkpoints" / f"step_{STEPS:08d}" for place in runs)
    states = [json.loads((place / "state.json").read_text()) for place in (one, two)]
    for state in states:
        for key in ("metrics_bytes", "losses", "best"):
            del state["progress"][key]
    assert states[0] == states[1]
    tensors = [safetensors.torch.load_file(place / "state.safetensors") for place in (one, two)]
    kinds = [{name: (v.shape, v.dtype) for name, v in found.items()} for found in tensors]
    assert kinds[0] == kinds[1]


def test_a_batch_that_processes_cannot_share_equally_is_refused(store):
    with pytest.raises(
        ConfigError, match=r"batch_rows: 64 rows .* 3 processes; make it a multiple"
    ):
        StoreRows(store, tiny(), Ranks(2, 3))


def workers(launcher: int) -> list[int]:
    """Processes that torchrun has started, in the order of their ranks."""
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    return sorted(int(child) for child in children if rank_of(int(child)) is not None)


def rank_of(process: int) -> int | None:
    environment = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
    found = [value for value in environment if value.startswith(b"RANK=")]
    return int(found[0].removeprefix(b"RANK=")) if found else None


def test_sigterm_of_one_process_ends_all_after_the_same_step(store_path, tmp_path):
    out = tmp_path / "dictionary"
    words = ["--store", store_path, "--out", out]
    chosen = settings("dfc", steps=100_000, log_every=1, validate_every=10**6)
    for key in ("steps", "features", "batch_rows", "threshold_start", "validation_fraction"):
        words += ["--set", f"train.{key}={chosen[key]}"]
    words += ["--set", "train.log_every=1", "--set", "train.k=4"]
    process = torchrun("-m", "train", "run", *words)
    deadline = time.monotonic() + 60
    log = out / "metrics.jsonl"
    while time.monotonic() < deadline and process.poll() is None:
        if log.exists() and log.read_bytes().count(b"\n") > 20:
            break
        time.sleep(0.05)
    (second,) = [one for one in workers(process.pid) if rank_of(one) == 1]
    os.kill(second, signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    assert str(ROOT / "train") not in output, output  # torchrun shows a traceback of its own
    (saved,) = saved_steps(out / "checkpoints")
    assert [line["step"] for line in lines(out)] == list(range(1, saved + 1))
    assert output.count("run the same command again to continue") == 1, output


def test_what_all_processes_refuse_is_said_once():
    process = torchrun("-m", "train", "run", "--store", "nowhere")
    output, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    assert output.count("nowhere/zarr.json: no such file") == 1, output
