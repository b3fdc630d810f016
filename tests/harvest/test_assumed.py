"""Plans from assumptions: arithmetic that can be done by hand."""

import json
import subprocess
import sys

import pytest

from harvest.assumed import assumed
from pipeline.assumptions import read_assumptions
from pipeline.errors import ConfigError


def test_the_store_has_the_bytes_of_its_rows():
    found = assumed(1_000_000, {"a": 4096, "b": 1024}, 5000, tasks=8, at_once=3)
    activations = 1_000_000 * (4096 + 1024) * 2
    assert activations < found.bytes["none"] < 1.1 * activations
    assert found.bytes["int8"] < found.bytes["lossless"] < found.bytes["none"]
    assert found.task_seconds == pytest.approx(25)
    assert found.seconds == pytest.approx(75)  # 8 tasks, 3 at once: three rounds
    assert found.bytes_per_second == pytest.approx(found.bytes["none"] / 1e6 * 15_000)


def test_half_the_assumptions_are_none():
    assert read_assumptions(None, None, None) is None
    with pytest.raises(ConfigError, match="give all of them"):
        read_assumptions(5, ["a=1"], None)
    with pytest.raises(ConfigError, match="expected MODEL=WIDTH"):
        read_assumptions(5, ["4096"], 1.0)


def test_the_command_needs_no_configuration(tmp_path):
    words = ["--assume-rows", "1000", "--assume-width", "a=64", "--assume-rate", "10", "--of", "2"]
    command = [sys.executable, "-m", "harvest", "plan", *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    assert "2 tasks of 0:00:50, 2 at once: 0:00:50" in done.stdout
    done = subprocess.run(
        [*command, "--json"], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert json.loads(done.stdout)["tasks"] == 2
