"""A harvest whose disk is full ends with one line and can be continued. About 6 s for a process."""

import os
import resource
import subprocess
import sys

import pytest
import yaml

from harvest.run import harvest
from harvest.settings import Settings
from pipeline.config import load_config
from store.verify import verify


@pytest.fixture
def config(model_pair, corpus_file, tmp_path):
    model = {"path": str(model_pair["a"]), "hookpoint": "model.layers.1", "device": "cpu"}
    file = tmp_path / "pipeline.yaml"
    file.write_text(
        yaml.safe_dump(
            {
                "run_dir": str(tmp_path / "run"),
                "models": {"a": {**model, "dtype": "float32"}},
                "corpus": {"path": str(corpus_file), "label_column": "domain", "limit": 6},
                "harvest": {"max_tokens": 48, "block_documents": 2},
                "store": {"chunk_rows": 100},
            }
        )
    )
    return file


def test_a_harvest_without_room_is_one_line_and_can_be_continued(config, tmp_path):
    def confined():
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))

    result = subprocess.run(
        [sys.executable, "-m", "harvest", "run", "--config", str(config)],
        preexec_fn=confined,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    (line,) = (line for line in result.stderr.splitlines() if line.startswith("error:"))
    file = tmp_path / "run/store.zarr/parts/00000/documents/text/c/0"
    assert line.startswith(f"error: {file}: File too large (1,048,580 bytes needed, ")
    assert line.endswith("; free space and run the same command again, or choose another run_dir")

    assert verify(tmp_path / "run/store.zarr").problems == []
    assert harvest(Settings.read(load_config(config, []))).documents == 6
    assert verify(tmp_path / "run/store.zarr").complete
