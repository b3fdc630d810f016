"""A harvest that is really killed or told to stop, again and again, ends with the bytes of an
undisturbed one, over a corpus of two weighted sources.

About 5 s of start-up per process on an idle core.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
import yaml

from harvest.run import harvest
from harvest.settings import Settings
from harvest.status import status as harvest_status
from harvest.tasks import Task
from pipeline.config import load_config
from store.verify import verify

BLOCK_DOCUMENTS = 2
KILL_AT_DOCUMENT = (0, 2, 16)


@pytest.fixture
def corpus(corpus_file, tmp_path) -> dict:
    """Two sources, three documents of the first for one of the second, some there twice."""
    documents = pl.read_parquet(corpus_file)
    odd = documents.with_row_index().filter(pl.col("index") % 2 == 1).drop("index")
    odd.write_ndjson(tmp_path / "odd.jsonl")
    return {
        "sources": {
            "all": {"path": str(corpus_file), "label_column": "domain", "weight": 3},
            "odd": {"path": str(tmp_path / "odd.jsonl"), "weight": 1},
        },
        "deduplicate": True,
    }


@pytest.fixture
def config(model_pair, corpus, tmp_path):
    """A configuration file whose run_dir is given on the command line."""
    hookpoints = {"a": "model.layers.1", "b": "gpt_neox.layers.1"}
    file = tmp_path / "pipeline.yaml"
    file.write_text(
        yaml.safe_dump(
            {
                "models": {
                    name: {
                        "path": str(path),
                        "hookpoint": hookpoints[name],
                        "device": "cpu",
                        "dtype": "float32",
                    }
                    for name, path in model_pair.items()
                },
                "corpus": corpus,
                "harvest": {"max_tokens": 48, "block_documents": BLOCK_DOCUMENTS},
                "store": {"chunk_rows": 100},
            }
        )
    )
    return file


def start(config: Path, run_dir: Path, *options: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "harvest", "run", "--config", str(config), *options]
    return subprocess.Popen(
        [*command, "--set", f"run_dir={run_dir}", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        text=True,
    )


def finish(config: Path, run_dir: Path) -> dict:
    output, errors = start(config, run_dir).communicate(timeout=120)
    assert output, errors
    return json.loads(output)


def attributes(run_dir: Path) -> dict:
    """The last commit; a commit is atomic, so this can be read at any time."""
    file = run_dir / "store.zarr" / "parts" / "00000" / "zarr.json"
    if not file.exists():
        return {"documents": 0, "rows": 0, "complete": False}
    return json.loads(file.read_bytes())["attributes"]


def stop_at(
    config: Path, run_dir: Path, document: int, delay: float, number: int = signal.SIGKILL
) -> dict:
    """Starts the harvest, stops it `delay` seconds after that commit, returns the last commit."""
    process = start(config, run_dir)
    begun = run_dir / "store.zarr" / "parts" / "zarr.json"
    deadline = time.monotonic() + 120
    while not (begun.exists() and attributes(run_dir)["documents"] >= document):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.001)
    time.sleep(delay)
    process.send_signal(number)
    begin = time.monotonic()
    _, errors = process.communicate()
    if number == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL, "it ended before it was killed"
    else:
        assert process.returncode == 128 + number, errors
        assert errors.splitlines()[-1].endswith("run the same command again to continue")
        assert time.monotonic() - begin < 20
    return attributes(run_dir)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


@pytest.fixture
def undisturbed(config, tmp_path):
    """The summary of a harvest that nothing stopped, and the bytes of its store."""
    run_dir = tmp_path / "undisturbed"
    summary = harvest(Settings.read(load_config(config, [f"run_dir={run_dir}"])))
    assert summary.left_out["duplicate documents"] > 5
    return summary, contents(run_dir / "store.zarr")


def same_in_the_end(config, run_dir, undisturbed) -> None:
    summary, wanted = undisturbed
    assert finish(config, run_dir)["rows"] == summary.rows
    found = contents(run_dir / "store.zarr")
    assert found.keys() == wanted.keys()
    assert [name for name in wanted if found[name] != wanted[name]] == []


def test_a_harvest_killed_at_several_points_ends_byte_identical(config, undisturbed, tmp_path):
    delays = random.Random(0)
    killed_at = []
    for document in KILL_AT_DOCUMENT:
        left = stop_at(config, tmp_path / "killed", document, delays.uniform(0, 0.03))
        assert not left["complete"]
        assert left["documents"] < undisturbed[0].documents
        killed_at.append(left["documents"])
    assert killed_at[-1] > 0
    assert killed_at == sorted(killed_at)
    same_in_the_end(config, tmp_path / "killed", undisturbed)


@pytest.mark.parametrize("forgotten", [False, True])
def test_a_harvest_told_to_stop_commits_what_it_has_and_ends_byte_identical(
    forgotten, config, undisturbed, tmp_path
):
    """Also where nobody knows any more how far the corpus was read, so that it is read again."""
    run_dir = tmp_path / "stopped"
    stop_at(config, run_dir, 4, 0.0, signal.SIGTERM)
    left = verify(run_dir / "store.zarr")
    assert left.problems == []
    assert not left.complete
    assert harvest_status(run_dir / "store.zarr").tasks[0].state == "stopped"
    if forgotten:
        shutil.rmtree(run_dir / "harvest")
    same_in_the_end(config, run_dir, undisturbed)


def test_tasks_at_the_same_time_write_what_they_write_one_after_another(config, tmp_path):
    tasks = [
        start(config, tmp_path / "together", "--task", str(number), "--of", "2")
        for number in range(2)
    ]
    for task in tasks:
        _, errors = task.communicate(timeout=120)
        assert task.returncode == 0, errors
    alone = Settings.read(load_config(config, [f"run_dir={tmp_path / 'alone'}"]))
    for number in (1, 0):
        summary = harvest(alone, Task(number, 2))
    assert summary.missing == []
    wanted = contents(tmp_path / "alone" / "store.zarr")
    assert contents(tmp_path / "together" / "store.zarr") == wanted
    assert verify(tmp_path / "together" / "store.zarr").complete
