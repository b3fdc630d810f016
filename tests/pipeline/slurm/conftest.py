"""Slurm's commands as small scripts: what they are told is noted, what they say is given."""

import os

import pytest

SBATCH = """#!/bin/sh
echo "$@" >> {folder}/sbatch.said
n=$(wc -l < {folder}/sbatch.said)
echo $((100 + n))
"""
SQUEUE = """#!/bin/sh
for word in "$@"; do job=$word; done
cat {folder}/queue.$job 2>/dev/null || true
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A folder with sbatch and squeue, first in PATH; queue.N is what is said of job N."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in {"sbatch": SBATCH, "squeue": SQUEUE}.items():
        (folder / name).write_text(text.format(folder=folder))
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder
