import errno
import itertools
import multiprocessing
import os
import shutil
import tempfile
import threading
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import StoreError
from store import files
from store.block import Block
from store.reader import Store
from store.verify import verify
from store.writer import PartWriter

LENGTHS = ((5, 0, 12), (9, 3), (), (0,), (16,))
ROWS_AFTER = [0, 17, 29, 29, 29, 45]


class Died(BaseException):
    """Stands for the process's death."""


class Machine:
    """File operations that fail for good after some have succeeded, writes in their middle.

    A death while a file is written, before a rename and before a folder is created leaves every
    state of the disk that a death anywhere else would leave.
    """

    def __init__(self, monkeypatch, error=Died):
        self.left = 10**9
        self.done = 0
        self._error = error
        self._open, self._replace, self._mkdir = open, os.replace, os.mkdir
        monkeypatch.setattr(files, "open", self.open, raising=False)
        monkeypatch.setattr(os, "replace", self.replace)
        monkeypatch.setattr(os, "mkdir", self.mkdir)

    def step(self, on_death=lambda: None):
        if self.done >= self.left:
            on_death()
            raise self._error() if self._error is Died else self._error
        self.done += 1

    def open(self, path, mode):
        machine, file = self, self._open(path, mode)

        class Dying:
            def __enter__(self):
                return self

            def __exit__(self, *_):
                file.close()

            def write(self, data):
                data = bytes(data)
                machine.step(lambda: file.write(data[: len(data) // 2]))
                file.write(data)

            flush, fileno = file.flush, file.fileno

        return Dying()

    def replace(self, source, target):
        self.step()
        self._replace(source, target)

    def mkdir(self, *args, **kwargs):
        self.step()
        self._mkdir(*args, **kwargs)


@pytest.fixture
def machine(monkeypatch):
    return Machine(monkeypatch)


@pytest.fixture
def harvest(make_schema, make_block):
    """Writes what is still to write, as a harvest task does."""
    blocks = [make_block(lengths, seed=number) for number, lengths in enumerate(LENGTHS)]

    def run(path):
        with PartWriter(path, make_schema()) as writer:
            if writer.complete:
                return
            for cursor in range(writer.cursor, len(blocks)):
                writer.append(blocks[cursor], cursor + 1)
            writer.finish()

    return run


@pytest.fixture
def undisturbed(harvest, tmp_path, tree):
    harvest(tmp_path / "undisturbed.zarr")
    return tree(tmp_path / "undisturbed.zarr")


def content(store: Store, rows: int, documents: int) -> list:
    """Everything that a reader finds, cut to these many rows and documents."""
    values = [
        torch.cat([store.activations(h.name, chunk) for chunk in range(store.chunks)])[:rows]
        if rows
        else torch.zeros(0, h.width)
        for h in store.schema.hookpoints
    ]
    columns = [store.column(name)[:rows] for name in store.schema.row_columns]
    texts = [store.documents.text(number) for number in range(documents)]
    return [v.tolist() for v in [*values, *columns]] + texts


@pytest.fixture(scope="module")
def crashes(make_schema, make_block, tree, memory_folder):
    """For every point of death: what was seen of the store then, and how it ended.

    The store of two blocks takes some 250 file operations; about 10 s.
    """
    folder = memory_folder / "crashes"
    blocks = [make_block((5, 0, 12), seed=0), make_block((9, 3), seed=1)]

    def run(path):
        with PartWriter(path, make_schema()) as writer:
            for cursor in range(writer.cursor, len(blocks)):
                writer.append(blocks[cursor], cursor + 1)
            writer.finish()

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
        run(path)
        found.append(SimpleNamespace(step=step, rows=rows, same=same, final=tree(path)))
        shutil.rmtree(path)
    return SimpleNamespace(found=found, undisturbed=tree(full.path))


def test_death_at_any_file_operation_leaves_only_whole_blocks(crashes):
    assert {crash.rows for crash in crashes.found} == {0, 17, 29}


def test_death_at_any_file_operation_leaves_the_committed_rows_as_they_were(crashes):
    assert [crash.step for crash in crashes.found if not crash.same] == []


def test_a_store_resumed_after_death_at_any_file_operation_is_byte_identical(crashes):
    wrong = [crash.step for crash in crashes.found if crash.final != crashes.undisturbed]
    assert wrong == []


@given(lives=st.lists(st.integers(0, 250), max_size=6))
@settings(max_examples=12, deadline=None)
def test_a_store_that_died_many_times_is_byte_identical(
    make_schema, make_block, tree, memory_folder, lives
):
    folder = Path(tempfile.mkdtemp(dir=memory_folder))
    blocks = [make_block(lengths, seed=number) for number, lengths in enumerate(LENGTHS)]

    def run(path):
        with PartWriter(path, make_schema()) as writer:
            for cursor in range(writer.cursor, len(blocks)):
                writer.append(blocks[cursor], cursor + 1)
            writer.finish()

    run(folder / "undisturbed.zarr")
    with pytest.MonkeyPatch.context() as monkeypatch:
        machine = Machine(monkeypatch)
        for left in lives:
            machine.done, machine.left = 0, left
            try:
                run(folder / "store.zarr")
            except Died:
                continue
        machine.left = 10**9
        run(folder / "store.zarr")
    assert tree(folder / "store.zarr") == tree(folder / "undisturbed.zarr")


def test_a_finished_part_opened_again_stays_as_it_is(harvest, undisturbed, tmp_path, tree):
    harvest(tmp_path / "undisturbed.zarr")
    assert tree(tmp_path / "undisturbed.zarr") == undisturbed


@given(st.lists(st.integers(0, 14), max_size=4))
@settings(max_examples=12, deadline=None)
def test_chunks_do_not_depend_on_how_documents_fall_into_blocks(
    build_store, make_block, tree, memory_folder, cuts
):
    folder = Path(tempfile.mkdtemp(dir=memory_folder))
    whole = make_block((3, 0, 14, 1, 1, 8, 0, 5, 2, 20, 0, 0, 4, 7), seed=5)
    edges = [0, *sorted(cuts), 14]
    pieces = [cut(whole, first, last) for first, last in pairwise(edges)]
    once = build_store(folder / "once.zarr", [[whole]])
    apart = build_store(folder / "apart.zarr", [pieces])
    left, right = tree(once.path), tree(apart.path)
    del left["parts/00000/zarr.json"], right["parts/00000/zarr.json"]  # statistics round otherwise
    assert left == right


def cut(block: Block, first: int, last: int) -> Block:
    """The documents `first` up to `last` of a block, as a block."""
    start, stop = np.searchsorted(block.document, [first, last])
    return replace(
        block,
        texts=block.texts[first:last],
        labels=block.labels[first:last],
        activations={name: rows[start:stop] for name, rows in block.activations.items()},
        document=block.document[start:stop] - first,
        char_start=block.char_start[start:stop],
        char_end=block.char_end[start:stop],
        tokens={name: ids[start:stop] for name, ids in block.tokens.items()},
    )


def test_a_chunk_of_zeros_is_written(build_store, make_block, tmp_path):
    store = build_store(tmp_path / "store.zarr", [[make_block((16,), scale=0.0)]])
    assert store.activations("b.mid", 0).tolist() == [[0.0] * 10] * 16


def test_a_full_disk_leaves_the_store_readable_at_its_last_commit(
    make_schema, make_block, tmp_path, monkeypatch
):
    path = tmp_path / "store.zarr"
    machine = Machine(monkeypatch, OSError(errno.ENOSPC, "No space left on device"))
    with PartWriter(path, make_schema()) as writer:
        writer.append(make_block((5, 12)), 1)
        machine.left = machine.done + 5
        with pytest.raises(OSError, match="No space"):
            writer.append(make_block((9, 3)), 2)
    assert (Store(path).rows, verify(Store(path)).problems) == (17, [])


def test_a_writer_whose_append_failed_takes_no_more(make_schema, make_block, tmp_path, machine):
    with PartWriter(tmp_path / "store.zarr", make_schema()) as writer:
        machine.left = machine.done + 5
        with pytest.raises(Died):
            writer.append(make_block((9, 3)), 1)
        machine.left = 10**9
        with pytest.raises(AssertionError, match="open the part again"):
            writer.append(make_block((9, 3)), 1)


def test_a_second_writer_of_the_same_part_is_refused(make_schema, tmp_path):
    with (
        PartWriter(tmp_path / "store.zarr", make_schema()),
        pytest.raises(StoreError, match="another harvest is writing this part"),
    ):
        PartWriter(tmp_path / "store.zarr", make_schema())


def _is_refused(path, schema) -> None:
    try:
        PartWriter(path, schema)
    except StoreError:
        os._exit(3)
    os._exit(0)


def test_a_writer_in_another_process_is_refused(make_schema, tmp_path):
    arguments = (tmp_path / "store.zarr", make_schema())
    with PartWriter(*arguments):
        process = multiprocessing.get_context("fork").Process(target=_is_refused, args=arguments)
        process.start()
        process.join(30)
    assert process.exitcode == 3


def test_writers_of_different_parts_do_not_meet(make_schema, tmp_path):
    with PartWriter(tmp_path / "store.zarr", make_schema(), 0) as first:
        second = PartWriter(tmp_path / "store.zarr", make_schema(), 1)
        second.close()
    assert first.folder != second.folder


def test_many_parts_may_begin_at_the_same_instant(make_schema, tmp_path, monkeypatch):
    errors, rename = [], os.replace

    def slow_replace(source, target):
        time.sleep(0.002)
        rename(source, target)

    monkeypatch.setattr(os, "replace", slow_replace)

    def begin(part):
        try:
            PartWriter(tmp_path / "store.zarr", make_schema(), part).close()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=begin, args=(part,)) for part in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_a_writer_closed_in_another_thread_lets_the_part_go(make_schema, tmp_path):
    writer = PartWriter(tmp_path / "store.zarr", make_schema())
    thread = threading.Thread(target=writer.close)
    thread.start()
    thread.join()
    PartWriter(tmp_path / "store.zarr", make_schema()).close()


def test_a_refused_writer_holds_no_lock(make_schema, tmp_path):
    PartWriter(tmp_path / "store.zarr", make_schema()).close()
    with pytest.raises(StoreError):
        PartWriter(tmp_path / "store.zarr", make_schema(chunk_rows=8))
    PartWriter(tmp_path / "store.zarr", make_schema()).close()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"chunk_rows": 8}, "chunk_rows: store has 16, now 8"),
        ({"widths": (6, 11)}, r"hookpoints\[1\]\.width: store has 10, now 11"),
        ({"fingerprints": {"a": "0f", "b": "ff"}}, r"fingerprints\.b: store has '1e', now 'ff'"),
        ({"config": {"seed": 1, "limit": 5}}, r"config\.limit: store has None, now 5"),
    ],
)
def test_another_schema_is_refused_by_the_key_that_differs(changed, message, make_schema, tmp_path):
    PartWriter(tmp_path / "store.zarr", make_schema()).close()
    with pytest.raises(StoreError, match=message):
        PartWriter(tmp_path / "store.zarr", make_schema(**changed))


def test_a_schema_with_tuples_in_its_config_is_the_same_schema_again(make_schema, tmp_path):
    schema = make_schema(config={"layers": (1, 2), "by_number": {1: "x"}})
    PartWriter(tmp_path / "store.zarr", schema).close()
    PartWriter(tmp_path / "store.zarr", schema).close()


def test_a_folder_with_something_else_in_it_is_refused(make_schema, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("x")
    with pytest.raises(StoreError, match="not empty and not a store"):
        PartWriter(tmp_path / "thesis", make_schema())


def test_a_file_in_the_place_of_the_store_is_refused(make_schema, tmp_path):
    (tmp_path / "store.zarr").write_text("x")
    with pytest.raises(StoreError, match="is a file, not a store"):
        PartWriter(tmp_path / "store.zarr", make_schema())


def test_a_zarr_group_of_somebody_else_is_refused(make_schema, tmp_path):
    files.write_group(tmp_path / "store.zarr", {"made_by": "others"})
    with pytest.raises(StoreError, match="not an activation store of this project"):
        PartWriter(tmp_path / "store.zarr", make_schema())


def test_an_empty_folder_is_taken(make_schema, tmp_path):
    (tmp_path / "store.zarr").mkdir()
    PartWriter(tmp_path / "store.zarr", make_schema()).close()
    assert Store(tmp_path / "store.zarr").rows == 0


def test_the_cursor_is_what_the_last_append_said(make_schema, make_block, tmp_path):
    with PartWriter(tmp_path / "store.zarr", make_schema()) as writer:
        writer.append(make_block((2,)), 7)
    with PartWriter(tmp_path / "store.zarr", make_schema()) as writer:
        assert (writer.cursor, writer.rows, writer.complete) == (7, 2, False)


def test_blocks_without_rows_still_bring_their_documents(build_store, tmp_path):
    store = build_store(tmp_path / "store.zarr", [[(0, 0, 0), (), (0,)]])
    assert (store.rows, store.chunks, len(store.documents)) == (0, 0, 4)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_activation_that_is_no_number_is_refused_with_its_remedy(
    value, make_schema, make_block, tmp_path
):
    block = make_block((3,))
    block.activations["b.mid"][1, 2] = value
    with (
        PartWriter(tmp_path / "store.zarr", make_schema()) as writer,
        pytest.raises(
            StoreError, match=r"b\.mid: NaN or infinity before document 1.*models\.b\.dtype"
        ),
    ):
        writer.append(block, 1)


def test_a_column_beyond_32_bits_is_refused(make_schema, make_block, tmp_path):
    block = replace(make_block((3,)), char_end=np.full(3, 2**31, np.int64))
    with (
        PartWriter(tmp_path / "store.zarr", make_schema()) as writer,
        pytest.raises(StoreError, match="char_end 2147483648 does not fit 32 bits"),
    ):
        writer.append(block, 1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"char_start": np.zeros(2, np.int32)},
        {"labels": []},
        {"document": np.array([0, 0, 1], np.int32)},
        {"document": np.array([0, -1, 0], np.int32)},
    ],
)
def test_a_block_that_does_not_fit_together_cannot_be_made(wrong, make_block):
    with pytest.raises(AssertionError):
        replace(make_block((3,)), **wrong)
