"""A harvest that is really killed, again and again, ends with the bytes of an undisturbed one.

About 5 s of start-up per process on an idle core.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from harvest.run import harvest
from harvest.settings import Settings
from pipeline.config import load_config

BLOCK_DOCUMENTS = 2
KILL_AT_DOCUMENT = (0, 2, 16)


@pytest.fixture
def config(model_pair, corpus_file, tmp_path):
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
                "corpus": {"path": str(corpus_file), "label_column": "domain"},
                "harvest": {"max_tokens": 48, "block_documents": BLOCK_DOCUMENTS},
                "store": {"chunk_rows": 100},
            }
        )
    )
    return file


def start(config: Path, run_dir: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "harvest", "run", "--config", str(config)]
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


def kill_at(config: Path, run_dir: Path, document: int, delay: float) -> dict:
    """Starts the harvest, kills it `delay` seconds after that commit, returns the last commit."""
    process = start(config, run_dir)
    begun = run_dir / "store.zarr" / "parts" / "zarr.json"
    deadline = time.monotonic() + 120
    while not (begun.exists() and attributes(run_dir)["documents"] >= document):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.001)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "it ended before it was killed"
    return attributes(run_dir)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def test_a_harvest_killed_at_several_points_ends_byte_identical(config, tmp_path):
    undisturbed = harvest(
        Settings.read(load_config(config, [f"run_dir={tmp_path / 'undisturbed'}"]))
    )
    delays = random.Random(0)
    killed_at = []
    for document in KILL_AT_DOCUMENT:
        left = kill_at(config, tmp_path / "killed", document, delays.uniform(0, 0.03))
        assert not left["complete"]
        assert left["documents"] < undisturbed.documents
        killed_at.append(left["documents"])
    assert killed_at[-1] > 0
    assert killed_at == sorted(killed_at)

    resumed = finish(config, tmp_path / "killed")
    assert resumed["rows"] == undisturbed.rows
    wanted = contents(tmp_path / "undisturbed" / "store.zarr")
    found = contents(tmp_path / "killed" / "store.zarr")
    assert found.keys() == wanted.keys()
    assert [name for name in wanted if found[name] != wanted[name]] == []
