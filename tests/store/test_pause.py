"""A writer that pauses commits its rows, and the finished store does not show where it paused."""

import itertools
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import StoreError
from store.commits import read_log
from store.reader import Store
from store.repair import repair
from store.verify import verify
from store.writer import PartWriter

from .contents import content, flip, forge
from .machine import Died, Machine

LENGTHS = ((5, 0, 12), (9, 3), (), (0,), (16,), (2, 7), (1,), (11,))
COMMIT_ROWS = 26  # lines of the log behind blocks 2, 7 and 8


@pytest.fixture(scope="module")
def write(make_schema, make_block):
    """Writes what is still to write up to some block; pauses behind those in `pauses`."""

    def run(path, pauses=(), stop=8, commit_rows=COMMIT_ROWS):
        with PartWriter(path, make_schema(), commit_rows=commit_rows) as writer:
            if writer.complete:
                return path
            for cursor in range(writer.cursor, stop):
                writer.append(make_block(LENGTHS[cursor], seed=cursor), cursor + 1)
                if cursor + 1 in pauses:
                    writer.pause()
            if stop == 8:
                writer.finish()
        return path

    return run


@pytest.fixture(scope="module")
def undisturbed(write, tree, tmp_path_factory):
    return tree(write(tmp_path_factory.mktemp("undisturbed") / "store.zarr"))


@pytest.fixture
def paused(write, tmp_path):
    """Paused behind block 6 of 8: a line behind block 2, 25 rows in four blocks behind it."""
    path = write(tmp_path / "store.zarr", pauses=[6], stop=6)
    assert [len(read_log(part_of(path)).commits), state_of(path).pending] == [1, (0, 0, 16, 9)]
    return path


def part_of(path):
    return path / "parts/00000"


def state_of(path):
    return Store(path).parts[0].state


@given(
    lives=st.lists(st.tuples(st.sets(st.integers(0, 8)), st.integers(0, 7)), max_size=5),
    commit_rows=st.sampled_from([0, 10, 30, 1000]),
)
@settings(max_examples=30, deadline=None)
def test_a_store_paused_anywhere_and_continued_is_byte_identical(
    write, tree, memory_folder, lives, commit_rows
):
    folder = Path(tempfile.mkdtemp(dir=memory_folder))
    wanted = tree(write(folder / "undisturbed.zarr", commit_rows=commit_rows))
    for pauses, stop in lives:
        write(folder / "store.zarr", pauses, stop, commit_rows)
    assert tree(write(folder / "store.zarr", commit_rows=commit_rows)) == wanted
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def crashes(write, tree, memory_folder):
    """For every ninth file operation of a run that pauses twice: what a death there left."""
    folder = memory_folder / "paused"
    full = Store(write(folder / "undisturbed.zarr"))
    found = []
    for step in itertools.count(0, 9):
        path = folder / f"{step}.zarr"
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setattr(os, "fsync", lambda descriptor: None)
            machine = Machine(monkeypatch)
            machine.left = step
            try:
                write(path, [1, 6], stop=3)
                write(path, [1, 6])
                return found
            except Died:
                pass
        if (path / "zarr.json").exists():
            store = Store(path)
            extent = store.rows, len(store.documents)
            same = content(store, *extent) == content(full, *extent)
            found.append((step, store.rows, same, verify(path).problems, tree(write(path, [5]))))
        shutil.rmtree(path, ignore_errors=True)


def test_a_death_around_a_pause_leaves_a_pause_or_a_whole_commit(crashes):
    assert {rows for _, rows, *_ in crashes} == {0, 17, 29, 54, 55, 66}


def test_a_death_around_a_pause_damages_nothing(crashes):
    assert [
        (step, problems) for step, _, same, problems, _ in crashes if problems or not same
    ] == []


def test_a_store_that_died_around_a_pause_ends_byte_identical(crashes, undisturbed):
    assert [step for step, *_, final in crashes if final != undisturbed] == []


def test_a_reader_sees_the_rows_and_verify_reads_them_all(paused, write, tmp_path):
    store, full = Store(paused), Store(write(tmp_path / "full.zarr"))
    assert (store.rows, len(store.documents), store.complete) == (54, 9, False)
    assert content(store, 54, 9) == content(full, 54, 9)
    result = verify(paused)
    assert (result.problems, result.rows, result.complete) == ([], 54, False)


def test_statistics_are_those_of_a_writer_that_never_paused_bit_by_bit(paused, write, tmp_path):
    often = state_of(write(tmp_path / "often.zarr", stop=6, commit_rows=0))
    for name, found in state_of(paused).statistics.items():
        assert found.to_json() == often.statistics[name].to_json()


def test_a_pause_right_behind_a_commit_or_a_pause_writes_nothing(
    make_schema, make_block, tmp_path, tree, monkeypatch
):
    with PartWriter(tmp_path / "store.zarr", make_schema(), commit_rows=5) as writer:
        writer.pause()
        writer.append(make_block((9,)), 1)
        writer.pause()
        writer.append(make_block((2,)), 2)
        writer.pause()
        before = tree(tmp_path / "store.zarr")
        monkeypatch.setattr(os, "replace", None)
        writer.pause()
        assert (tree(tmp_path / "store.zarr"), writer.rows, writer.cursor) == (before, 11, 2)


@pytest.mark.parametrize("damaged", ["rows/document/c/3", "activations/a.mid/c/3/0", "zarr.json"])
def test_a_damaged_pause_is_cut_to_the_line_before_and_continues_byte_identical(
    damaged, paused, write, tree, undisturbed
):
    flip(part_of(paused) / damaged, 60)
    repair(paused)
    assert (verify(paused).problems, Store(paused).rows) == ([], 29)
    assert tree(write(paused)) == undisturbed


@pytest.mark.parametrize("damaged", ["rows/document/zarr.json", "documents/zarr.json"])
def test_damaged_metadata_of_a_paused_part_costs_no_row(damaged, paused, tree):
    before = tree(paused)
    flip(part_of(paused) / damaged, 60)
    repair(paused)
    assert tree(paused) == before


def test_a_damaged_log_of_a_paused_part_is_bridged_and_can_be_continued(paused, write):
    flip(part_of(paused) / "commits/c/0", 60)
    repair(paused)
    state = state_of(paused)
    assert (verify(paused).problems, state.rows, state.pending) == ([], 54, ())
    write(paused)
    assert (verify(paused).problems, Store(paused).rows) == ([], 66)


@pytest.mark.parametrize(
    "wrong",
    [
        {"pending": []},
        {"pending": [16, 8]},
        {"pending": [16, 0, 9, 0, 29]},
        {"documents": 4},
        {"text_bytes": 1},
        {"cursor": 1},
        {"labels": ["other", "prose", "code"]},
        {"excluded": {}},
        {"tokens": {"a": {"read": 1, "paired": 1}, "b": {"read": 1, "paired": 1}}},
    ],
)
def test_attributes_that_the_log_and_their_blocks_do_not_lead_to_are_refused(
    wrong, paused, make_schema
):
    forge(part_of(paused), **wrong)
    message = "does not lead to what the part's attributes say"
    assert any(message in problem for problem in verify(paused).problems)
    with pytest.raises(StoreError, match=message):
        PartWriter(paused, make_schema())


@pytest.mark.parametrize("wrong", [{"complete": True}, {"pending": [55]}, {"pending": [-1]}])
def test_blocks_that_cannot_be_waiting_are_refused(wrong, paused):
    forge(part_of(paused), **wrong)
    with pytest.raises(StoreError, match=r"zarr\.json: damaged part attributes \(.*(pend|wait)"):
        Store(paused)
