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

from .contents import content, flip, forge, overwrite
from .machine import Died, Machine

LENGTHS = ((5, 0, 12), (9, 3), (), (0,), (16,), (2, 7), (1,))
ROWS_AFTER = [0, 17, 29, 29, 29, 45, 54, 55]
CODECS = ["none", "lossless", "int8"]


@pytest.fixture(scope="module")
def write(make_schema, make_block):
    """Writes what is still to write of two parts of seven blocks each."""

    def run(path, codec="none", parts=2):
        schema = make_schema(codec=codec, parts=parts)
        for part in range(parts):
            with PartWriter(path, schema, part) as writer:
                if not writer.complete:
                    for cursor in range(writer.cursor, len(LENGTHS)):
                        block = make_block(LENGTHS[cursor], seed=100 * part + cursor, schema=schema)
                        writer.append(block, cursor + 1)
                    writer.finish()
        return path

    return run


@pytest.fixture(scope="module")
def undisturbed(write, tree, tmp_path_factory):
    """The files of an undisturbed store, by codec."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return {codec: tree(write(folder / codec, codec)) for codec in CODECS}


@pytest.fixture
def path(write, tmp_path):
    return write(tmp_path / "store.zarr")


@pytest.fixture
def part(path):
    return path / "parts/00000"


def rows_of_parts(path):
    return [part.rows for part in Store(path).parts]


DAMAGED_ROWS = [
    ("activations/b.mid/c/0/0", [0, 55]),
    ("activations/a.mid/c/1/0", [0, 55]),
    ("activations/a.mid/c/2/0", [29, 55]),
    ("rows/token_a/c/3", [45, 55]),
    ("rows/document/c/2", [29, 55]),
    ("documents/row_end/c/0", [0, 55]),
    ("documents/text/c/0", [0, 55]),
]


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(("damaged", "rows"), DAMAGED_ROWS)
@pytest.mark.parametrize("how", ["flipped", "deleted"])
def test_a_damaged_part_is_cut_to_its_last_good_commit_and_continues_byte_identical(
    codec, damaged, rows, how, write, tmp_path, undisturbed, tree
):
    path = write(tmp_path / "store.zarr", codec)
    file = path / "parts/00000" / damaged
    flip(file, 5) if how == "flipped" else file.unlink()
    repair(path)
    result = verify(path)
    assert (result.problems, result.complete, rows_of_parts(path)) == ([], False, rows)
    assert tree(write(path, codec)) == undisturbed[codec]


def test_a_repaired_store_is_what_a_writer_leaves_that_stopped_there(
    path, make_schema, make_block, tmp_path, tree
):
    """Statistics included, bit by bit."""
    for part in (0, 1):
        flip(path / f"parts/0000{part}/rows/char_end/c/2")
    repair(path)
    schema = make_schema(parts=2)
    for part in (0, 1):
        with PartWriter(tmp_path / "stopped.zarr", schema, part) as writer:
            for cursor in range(4):
                block = make_block(LENGTHS[cursor], seed=100 * part + cursor)
                writer.append(block, cursor + 1)
    assert tree(path) == tree(tmp_path / "stopped.zarr")


def test_what_is_left_reads_as_before(path):
    full = Store(path)
    documents = len(full.documents) - 4  # those of the last three blocks
    before = content(full, 84, documents)
    flip(path / "parts/00001/rows/char_end/c/2")
    repair(path)
    left = Store(path)
    assert (left.rows, len(left.documents)) == (84, documents)
    assert content(left, 84, documents) == before


def test_it_says_what_was_cut(path):
    flip(path / "parts/00001/rows/char_end/c/2")
    assert [str(part) for part in repair(path)] == [
        f"{path}/parts/00001: cut back from 55 to 29 rows"
    ]


METADATA = [
    "activations/zarr.json",
    "activations/a.mid/zarr.json",
    "rows/token_b/zarr.json",
    "documents/zarr.json",
    "documents/hash/zarr.json",
    "commits/zarr.json",
]


@pytest.mark.parametrize(
    "damaged", [f"parts/00000/{name}" for name in METADATA] + ["parts/zarr.json"]
)
@pytest.mark.parametrize("how", ["flipped", "deleted", "emptied"])
def test_damaged_metadata_of_groups_and_arrays_costs_no_row(damaged, how, path, undisturbed, tree):
    file = path / damaged
    if how == "deleted":
        file.unlink()
    else:
        flip(file) if how == "flipped" else file.write_bytes(b"")
    repair(path)
    assert tree(path) == undisturbed["none"]


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("how", ["flipped", "deleted", "emptied"])
def test_damaged_attributes_are_built_again_from_the_log(
    codec, how, write, tmp_path, undisturbed, tree
):
    path = write(tmp_path / "store.zarr", codec)
    file = path / "parts/00001/zarr.json"
    if how == "deleted":
        file.unlink()
    else:
        flip(file, 700) if how == "flipped" else file.write_bytes(b"")
    (repaired,) = repair(path)
    assert (repaired.rows_before, repaired.rows_after) == (55, 55)
    assert verify(path).problems == []
    assert tree(write(path, codec)) == undisturbed[codec]


def test_attributes_that_another_program_laid_out_anew_are_written_as_they_were(
    path, part, undisturbed, tree
):
    for file in (path / "zarr.json", part / "zarr.json"):
        file.write_bytes(file.read_bytes().replace(b"\n", b""))
    repair(path)
    assert tree(path) == undisturbed["none"]


@pytest.mark.parametrize("position", [0, 100, 700, 1500])
def test_a_damaged_log_is_bridged_and_costs_no_row(position, path, part):
    before = Store(path).parts[0].state
    flip(part / "commits/c/0", position)
    repair(path)
    result, after = verify(path), Store(path).parts[0].state
    assert (result.problems, result.complete) == ([], True)
    assert (after.rows, after.labels, after.tokens) == (before.rows, before.labels, before.tokens)
    assert {n: s.to_json() for n, s in after.statistics.items()} == {
        n: s.to_json() for n, s in before.statistics.items()
    }


def test_padding_behind_the_log_is_mended(part, path, undisturbed, tree):
    flip(part / "commits/c/0", -9)
    repair(path)
    assert tree(path) == undisturbed["none"]


def test_a_log_that_is_gone_is_one_line_then(path, part):
    shutil.rmtree(part / "commits")
    repair(path)
    assert verify(path).problems == []
    assert Store(path).parts[0].state.commits == 1


def test_a_part_with_a_bridged_log_can_be_continued(write, path, part):
    flip(part / "commits/c/0", 100)
    forge(part, complete=False)
    repair(path)
    write(path)
    assert verify(path).problems == []
    assert verify(path).complete


def test_damage_behind_a_damaged_line_of_the_log_cuts_before_that_line(
    write, path, part, undisturbed, tree
):
    flip(part / "commits/c/0", len(read_log(part).commits[0].line()) + 20)  # in the second line
    flip(part / "rows/char_end/c/3")
    repair(path)
    assert rows_of_parts(path) == [17, 55]
    assert tree(write(path)) == undisturbed["none"]


def test_leftover_files_are_removed(path, part, undisturbed, tree):
    (part / "rows/token_a/c/9").write_bytes(b"")
    (part / "rows/token_a/c/junk").write_bytes(b"")
    (part / "rows/token_a/x.tmp").write_bytes(b"")
    repair(path)
    assert tree(path) == undisturbed["none"]


def test_values_that_contradict_each_other_are_cut_off_too(write, path, undisturbed, tree):
    overwrite(Store(path), 0, "rows/char_start", lambda values: values.put([14], -1), chunk=2)
    repair(path)
    assert rows_of_parts(path) == [45, 55]
    assert tree(write(path)) == undisturbed["none"]


def test_a_good_store_is_left_alone(path, tree, monkeypatch):
    before = tree(path)
    monkeypatch.setattr(os, "replace", None)
    assert repair(path) == []
    assert tree(path) == before


def test_a_part_that_was_never_opened_stays_missing(write, path):
    shutil.rmtree(path / "parts/00001")
    assert repair(path) == []
    assert verify(path).missing == ["00001"]


def test_a_damaged_root_cannot_be_repaired(path, tree):
    flip(path / "zarr.json", 300)
    before = tree(path)
    with pytest.raises(StoreError, match=r"zarr\.json: .*restore"):
        repair(path)
    assert tree(path) == before


def test_a_part_without_attributes_and_log_cannot_be_repaired(path, part, tree):
    (part / "zarr.json").unlink()
    shutil.rmtree(part / "commits")
    flip(path / "parts/00001/rows/char_end/c/2")
    before = tree(path)
    with pytest.raises(StoreError, match="00000: cannot be repaired: neither its attributes nor"):
        repair(path)
    assert tree(path) == before


def test_a_part_is_repaired_while_another_is_being_written(path, make_schema):
    forge(path / "parts/00001", complete=False)
    with PartWriter(path, make_schema(parts=2), 1):
        flip(path / "parts/00000/rows/char_end/c/2")
        (path / "parts/00001/rows/document/c/9.tmp").write_bytes(b"being written")
        assert len(repair(path)) == 1
        assert (path / "parts/00001/rows/document/c/9.tmp").exists()


def test_a_part_that_is_being_written_is_not_repaired(path, make_schema, tree):
    with PartWriter(path, make_schema(parts=2), 1):
        flip(path / "parts/00001/rows/char_end/c/2")
        before = tree(path)
        with pytest.raises(StoreError, match=rf"process {os.getpid()} on .* is writing here"):
            repair(path)
        assert tree(path) == before


@pytest.mark.parametrize(
    "damaged", ["rows/char_end/c/2", "zarr.json", "commits/c/0", "rows/document/zarr.json"]
)
def test_a_repair_that_is_killed_can_be_done_again(damaged, write, path, part, tree, memory_folder):
    """At every eighth file operation."""
    flip(part / damaged, 60)
    wanted = shutil.copytree(path, path.with_name("wanted.zarr"))
    repair(wanted)
    end = tree(write(shutil.copytree(wanted, path.with_name("end.zarr"))))
    for step in range(0, 1000, 8):
        again = Path(tempfile.mkdtemp(dir=memory_folder)) / "store.zarr"
        shutil.copytree(path, again)
        with pytest.MonkeyPatch.context() as monkeypatch:
            machine = Machine(monkeypatch)
            machine.left = step
            try:
                repair(again)
                break
            except Died:
                pass
        repair(again)
        assert verify(again).problems == []
        assert rows_of_parts(again) == rows_of_parts(wanted)
        assert tree(write(again)) == end, step
        shutil.rmtree(again.parent)


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_any_damage_is_repaired_and_the_rest_is_kept(write, memory_folder, undisturbed, tree, data):
    path = Path(tempfile.mkdtemp(dir=memory_folder)) / "store.zarr"
    write(path)
    files = sorted(set(undisturbed["none"]) - {"zarr.json"})
    logs = False
    for name in data.draw(st.lists(st.sampled_from(files), min_size=1, max_size=3, unique=True)):
        flip(path / name, data.draw(st.integers(0, len(undisturbed["none"][name]) - 1)))
        logs |= "commits/c" in name
    try:
        repair(path)
    except StoreError:
        assert logs, "only a part that lost its log and its attributes cannot be repaired"
        return
    assert verify(path).problems == []
    write(path)
    result = verify(path)
    assert (result.problems, result.complete, result.rows) == ([], True, 110)
    assert logs or tree(path) == undisturbed["none"]
    shutil.rmtree(path.parent)


@pytest.mark.parametrize("chunk_rows", [16, 8])
def test_a_part_of_another_store_is_neither_adopted_nor_cut(
    build_store, make_schema, tmp_path, tree, chunk_rows
):
    mine = build_store(tmp_path / "mine.zarr")
    schema = make_schema(chunk_rows=chunk_rows, fingerprints={"a": "another", "b": "model"})
    other = build_store(tmp_path / "other.zarr", schema=schema)
    shutil.rmtree(mine.path / "parts/00000")
    shutil.copytree(other.path / "parts/00000", mine.path / "parts/00000")
    before = tree(mine.path)
    with pytest.raises(StoreError, match="written for a store with another schema"):
        repair(mine.path)
    assert tree(mine.path) == before
