"""A writer that dies at any file operation leaves its last commit, and can go on from there."""

import itertools
import json
import os
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.reader import Store
from store.verify import verify
from store.writer import PartWriter

from .contents import content
from .machine import Died, Machine

LENGTHS = ((5, 0, 12), (9, 3), (), (0,), (16,))


@pytest.fixture(scope="module")
def write(make_schema, make_block):
    """Writes what is still to write of some blocks, as a harvest task does."""

    def run(path, blocks=5, commit_rows=0):
        with PartWriter(path, make_schema(), commit_rows=commit_rows) as writer:
            if writer.complete:
                return
            for cursor in range(writer.cursor, blocks):
                writer.append(make_block(LENGTHS[cursor], seed=cursor), cursor + 1)
            writer.finish()

    return run


def lengths(path):
    """How many rows zarr tells other clients of, array by array."""
    files = [*path.glob("parts/*/activations/*/zarr.json"), *path.glob("parts/*/rows/*/zarr.json")]
    return [json.loads(file.read_bytes())["shape"][0] for file in files]


@pytest.fixture(scope="module", params=[0, 20], ids=["every-block", "every-20-rows"])
def crashes(request, write, tree, memory_folder):
    """For every point of death: what was seen of the store then, and how it ended.

    A store of two blocks takes some 250 file operations; about 10 s.
    """
    folder = memory_folder / f"crashes-{request.param}"

    def run(path):
        write(path, blocks=2, commit_rows=request.param)

    run(folder / "undisturbed.zarr")
    full = Store(folder / "undisturbed.zarr")
    found = []
    for step in itertools.count():
        path = folder / f"{step}.zarr"
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setattr(os, "fsync", lambda descriptor: None)
            machine = Machine(monkeypatch)
            machine.left = step
            try:
                run(path)
                break
            except Died:
                pass
        seen = Store(path) if (path / "zarr.json").exists() else None
        rows, documents = (seen.rows, len(seen.documents)) if seen else (0, 0)
        same = not seen or content(seen, rows, documents) == content(full, rows, documents)
        crash = SimpleNamespace(step=step, rows=rows, same=same, said=lengths(path))
        crash.problems = verify(path).problems if seen else []
        run(path)
        crash.final = tree(path)
        found.append(crash)
        shutil.rmtree(path)
    return SimpleNamespace(found=found, undisturbed=tree(full.path), commit_rows=request.param)


def test_death_at_any_file_operation_leaves_only_whole_commits(crashes):
    committed = {0: {0, 17, 29}, 20: {0, 29}}
    assert {crash.rows for crash in crashes.found} == committed[crashes.commit_rows]


def test_death_at_any_file_operation_leaves_the_committed_rows_as_they_were(crashes):
    assert [crash.step for crash in crashes.found if not crash.same] == []


def test_death_at_any_file_operation_shows_other_clients_no_row_that_is_not_committed(crashes):
    assert [crash.step for crash in crashes.found if max(crash.said, default=0) > crash.rows] == []


def test_what_a_death_leaves_is_no_damage(crashes):
    assert [crash.problems for crash in crashes.found if crash.problems] == []


def test_a_store_resumed_after_death_at_any_file_operation_is_byte_identical(crashes):
    wrong = [crash.step for crash in crashes.found if crash.final != crashes.undisturbed]
    assert wrong == []


@given(lives=st.lists(st.integers(0, 250), max_size=6), commit_rows=st.sampled_from([0, 10, 40]))
@settings(max_examples=12, deadline=None)
def test_a_store_that_died_many_times_is_byte_identical(
    write, tree, memory_folder, lives, commit_rows
):
    folder = Path(tempfile.mkdtemp(dir=memory_folder))
    write(folder / "undisturbed.zarr", commit_rows=commit_rows)
    with pytest.MonkeyPatch.context() as monkeypatch:
        machine = Machine(monkeypatch)
        for left in lives:
            machine.done, machine.left = 0, left
            try:
                write(folder / "store.zarr", commit_rows=commit_rows)
            except Died:
                continue
        machine.left = 10**9
        write(folder / "store.zarr", commit_rows=commit_rows)
    assert tree(folder / "store.zarr") == tree(folder / "undisturbed.zarr")


def test_a_finished_part_opened_again_stays_as_it_is(write, tmp_path, tree):
    write(tmp_path / "store.zarr")
    before = tree(tmp_path / "store.zarr")
    write(tmp_path / "store.zarr")
    assert tree(tmp_path / "store.zarr") == before
