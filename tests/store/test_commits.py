import json
import os
import shutil
from dataclasses import replace

import pytest
import zarr

from pipeline.errors import StoreError
from store.commits import Commit, CommitLog, read_log, rewrite_log
from store.part import PartState
from store.reader import Store
from store.recompute import recompute
from store.writer import PartWriter

from .contents import flip

LENGTHS = ((5, 0, 12), (9, 3), (), (0,), (16,), (2,))


@pytest.fixture
def part(build_store, tmp_path):
    """A part of six commits."""
    return build_store(tmp_path / "store.zarr", [LENGTHS]).parts[0]


def rows_after_each(path, schema, blocks, commit_rows):
    """Rows that a reader sees after each append, and at the end."""
    with PartWriter(path, schema, commit_rows=commit_rows) as writer:
        seen = []
        for cursor, block in enumerate(blocks):
            writer.append(block, cursor + 1)
            seen.append((Store(path).rows, writer.rows, writer.rows_appended, writer.cursor))
        writer.finish()
    return [*seen, (Store(path).rows, writer.rows, writer.rows_appended, writer.cursor)]


def test_every_append_commits_unless_told_otherwise(make_schema, make_block, tmp_path):
    blocks = [make_block((lengths,)) for lengths in (3, 4)]
    found = rows_after_each(tmp_path / "store.zarr", make_schema(), blocks, 0)
    assert found == [(3, 3, 3, 1), (7, 7, 7, 2), (7, 7, 7, 2)]


def test_a_commit_waits_for_its_rows_and_the_last_one_for_the_end(
    make_schema, make_block, tmp_path
):
    blocks = [make_block((rows,)) for rows in (3, 4, 30, 2)]
    found = rows_after_each(tmp_path / "store.zarr", make_schema(), blocks, 7)
    assert found == [(0, 0, 3, 0), (7, 7, 7, 2), (37, 37, 37, 3), (37, 37, 39, 3), (39, 39, 39, 4)]


def test_commits_fall_where_they_fell_before_when_a_part_is_continued(
    make_schema, make_block, tmp_path, tree
):
    def write(path, stops):
        for stop in stops:
            with PartWriter(path, make_schema(), commit_rows=20) as writer:
                for cursor in range(writer.cursor, stop):
                    writer.append(make_block((1 + cursor % 9,), seed=cursor), cursor + 1)
                if stop == 30:
                    writer.finish()
        return tree(path)

    assert write(tmp_path / "a", [3, 4, 11, 29, 30]) == write(tmp_path / "b", [30])


def test_fewer_commits_write_fewer_files(make_schema, make_block, tmp_path, monkeypatch):
    renames = []
    rename = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (renames.append(b), rename(a, b)))

    def written(path, commit_rows):
        renames.clear()
        with PartWriter(path, make_schema(chunk_rows=64), commit_rows=commit_rows) as writer:
            for cursor in range(16):
                writer.append(make_block((8,)), cursor + 1)
            writer.finish()
        return sum("/c/" in str(file) for file in renames)

    assert written(tmp_path / "rarely", 64) * 5 < written(tmp_path / "often", 0)


def test_the_log_has_a_line_for_each_commit(part):
    log = read_log(part.folder, part.state.log_bytes)
    assert [commit.rows for commit in log.commits] == [17, 29, 29, 29, 45, 47]
    assert [commit.documents for commit in log.commits] == [3, 5, 5, 6, 7, 8]
    assert [commit.blocks for commit in log.commits] == [(17,), (12,), (0,), (0,), (16,), (2,)]
    assert [commit.cursor for commit in log.commits] == [1, 2, 3, 4, 5, 6]


def test_the_last_line_says_what_the_attributes_say(part):
    log = read_log(part.folder, part.state.log_bytes)
    assert (log.damage, log.leads_to(part.state)) == ("", True)
    assert not log.first(5).leads_to(part.state)


def test_any_zarr_client_reads_the_log(part):
    values = zarr.open_array(part.folder / "commits", mode="r")[:].tobytes()
    assert [json.loads(line)["number"] for line in values.splitlines()] == [1, 2, 3, 4, 5, 6]


def test_statistics_computed_again_from_log_and_rows_are_the_writers_bit_by_bit(
    make_schema, make_block, tmp_path
):
    for codec in ("none", "lossless", "int8"):
        path, schema = tmp_path / codec, make_schema(codec=codec)
        states = []
        with PartWriter(path, schema, commit_rows=10) as writer:
            for cursor, lengths in enumerate(LENGTHS):
                writer.append(make_block(lengths, seed=cursor), cursor + 1)
                states.append(Store(path).parts[0].state)
        log = read_log(writer.folder)
        for state in states:
            found = recompute(writer.folder, schema, log.first(state.commits))
            assert found.log_bytes == state.log_bytes
            assert exact(found) == exact(state)


def exact(state: PartState) -> tuple:
    statistics = {name: found.to_json() for name, found in state.statistics.items()}
    return replace(state, statistics={}), statistics


def test_any_byte_of_the_log_that_changes_is_found_in_its_line(part):
    file = part.folder / "commits/c/0"
    lines = read_log(part.folder, part.state.log_bytes).content.splitlines(keepends=True)
    start = 0
    for number, line in enumerate(lines, 1):
        for position in range(start, start + len(line)):
            flip(file, position, 1 << position % 8)
            log = read_log(part.folder, part.state.log_bytes)
            flip(file, position, 1 << position % 8)
            assert len(log.commits) == number - 1
            assert log.damage.startswith(f"line {number} of ")
        start += len(line)


@pytest.mark.parametrize(
    "junk",
    [b"\xff\xfe\n", b"[" * 50_000, b"{}\n", b"null\n", b'{"number": 1}\n', b"9" * 10_000, b"NaN\n"],
)
def test_junk_in_the_log_is_damage_and_no_exception(junk, part):
    shutil.rmtree(part.folder / "commits/c")
    rewrite_log(part.folder, _Content(junk))
    log = read_log(part.folder, len(junk))
    assert log.commits == ()
    assert log.damage.startswith("line 1 of 1 is damaged")


class _Content:
    def __init__(self, content: bytes) -> None:
        self.content = content


def test_lines_that_do_not_follow_each_other_are_damage(part):
    first, second, *_ = read_log(part.folder, part.state.log_bytes).commits
    swapped = CommitLog((second, first), "")
    rewrite_log(part.folder, swapped)
    log = read_log(part.folder, len(swapped.content))
    assert (log.commits, "commit 2 follows commit 0" in log.damage) == ((), True)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"rows": 16}, "holds less"), ({"cursor": 0}, "holds less"), ({"blocks": (3,)}, "blocks")],
)
def test_a_line_that_contradicts_the_one_before_is_damage(change, message, part):
    first, second, *_ = read_log(part.folder, part.state.log_bytes).commits
    wrong = Commit(**{**dict(second), **change})
    rewrite_log(part.folder, CommitLog((first, wrong), ""))
    log = read_log(part.folder, len(first.line() + wrong.line()))
    assert (log.commits, message in log.damage) == ((first,), True)


def test_a_log_longer_than_a_chunk_is_read_whole(make_schema, make_block, tmp_path):
    block = make_block((1,), labels=("x" * 200,))
    with PartWriter(tmp_path / "store.zarr", make_schema()) as writer:
        for cursor in range(80):
            writer.append(replace(block, labels=[f"{cursor}" + "x" * 200]), cursor + 1)
    assert len(list((writer.folder / "commits/c").iterdir())) > 1
    log = read_log(writer.folder)
    assert (len(log.commits), log.damage) == (80, "")


def test_a_writer_refuses_to_continue_behind_a_damaged_log(part, make_schema):
    flip(part.folder / "commits/c/0", 5)
    with pytest.raises(StoreError, match=r"commits: commit log line 1.*--repair"):
        PartWriter(part.folder.parent.parent, make_schema())


def test_a_writer_refuses_a_part_whose_attributes_are_gone(part, make_schema):
    (part.folder / "zarr.json").unlink()
    with pytest.raises(StoreError, match=r"zarr\.json: is gone, but the part has commits.*repair"):
        PartWriter(part.folder.parent.parent, make_schema())


def test_a_writer_refuses_rows_of_which_nothing_tells(part, make_schema):
    (part.folder / "zarr.json").unlink()
    shutil.rmtree(part.folder / "commits")
    with pytest.raises(StoreError, match="holds rows, but its attributes and its log are gone"):
        PartWriter(part.folder.parent.parent, make_schema())
