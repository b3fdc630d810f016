"""Imports that die, really or as if, and those that go on with other settings."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.errors import StoreError
from store import files
from store.config import StoreConfig
from store.import_plan import plan_import
from store.importer import import_caches

from .caches import ROWS, TOKENS, random_rows, run_import, write_cache


class Killed(BaseException):
    """Stands for the process's death."""


@pytest.fixture
def life(monkeypatch):
    """A life of so many file operations, after which the process dies."""
    left = [0]
    replace = os.replace

    def mortal(source, target):
        if left[0] == 0:
            raise Killed
        left[0] -= 1
        replace(source, target)

    def begin(operations):
        left[0] = operations
        monkeypatch.setattr(files.os, "replace", mortal)

    return begin


def test_an_import_that_dies_anywhere_and_runs_again_is_byte_identical(
    caches, tmp_path, tree, life
):
    life(10**9)
    run_import(caches, tmp_path / "undisturbed.zarr")
    undisturbed = tree(tmp_path / "undisturbed.zarr")
    deaths, operations = 0, 0
    while True:
        path = tmp_path / f"{operations}.zarr"
        life(operations)
        try:
            run_import(caches, path)
        except Killed:
            deaths += 1
            life(10**9)
            run_import(caches, path)
            assert tree(path) == undisturbed, f"died after {operations} operations"
            operations += 3
            continue
        break
    assert deaths > 10


def test_an_import_continues_behind_what_is_written(caches, tmp_path, monkeypatch):
    path = tmp_path / "store.zarr"
    plan = plan_import(caches, StoreConfig(chunk_rows=16), 8)

    def stop(rows):
        if rows:
            raise Killed

    with pytest.raises(Killed):
        import_caches(plan, path, stop)
    seen = []
    import_caches(plan, path, seen.append)
    assert seen == [10, 31, ROWS]


@pytest.mark.parametrize("what", ["cache", "tokenizer", "models", "document_rows"])
def test_a_changed_import_is_refused(caches, tmp_path, model_pair, what):
    for cache in caches:
        (cache.parent / "sequence_ranges.pt").unlink()
    path = tmp_path / "store.zarr"
    before = run_import(caches, path).path.joinpath("zarr.json").read_bytes()
    options = {
        "cache": {},
        "tokenizer": {"tokenizer": str(model_pair["a"])},
        "models": {"models": ["x", "y"]},
        "document_rows": {"document_rows": 9},
    }[what]
    if what == "cache":
        write_cache(caches[0], random_rows(ROWS, 6, 9), (7, 20), TOKENS)
    with pytest.raises(StoreError, match="was begun with other settings"):
        run_import(caches, path, **options)
    assert (path / "zarr.json").read_bytes() == before


def committed_rows(path: Path) -> int:
    """Rows of the last commit; a commit is atomic, so this can be read at any time."""
    file = path / "parts/00000/zarr.json"
    return json.loads(file.read_bytes())["attributes"]["rows"] if file.exists() else 0


def test_an_import_that_is_really_killed_ends_byte_identical(tmp_path, tree):
    rows = 20_000
    folder = write_cache(tmp_path / "m/web/layer_1_out", random_rows(rows, 64, 1), (9_000,))
    run_import([folder], tmp_path / "undisturbed.zarr", chunk_rows=256, document_rows=128)
    path = tmp_path / "killed.zarr"
    words = [sys.executable, "-m", "store", "import", str(folder), str(path)]
    process = subprocess.Popen(
        [*words, "--set", "store.chunk_rows=256"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 60
    while not committed_rows(path):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert 0 < committed_rows(path) < rows
    run_import([folder], path, chunk_rows=256, document_rows=128)
    assert tree(path) == tree(tmp_path / "undisturbed.zarr")
