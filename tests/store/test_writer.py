import os
import tempfile
import threading
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import StoreError
from store import files
from store.block import Block, document_hash, encode_text, first_non_finite
from store.reader import Store
from store.writer import NonFinite, PartWriter

from .machine import Died, Machine


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
    assert chunks(tree(once.path)) == chunks(tree(apart.path))


def chunks(files: dict[str, bytes]) -> dict[str, bytes]:
    """All but the commit log and the statistics, which know of the blocks."""
    blocks = ("parts/00000/commits", "parts/00000/zarr.json")
    return {name: data for name, data in files.items() if not name.startswith(blocks)}


def cut(block: Block, first: int, last: int) -> Block:
    """The documents `first` up to `last` of a block, as a block."""
    start, stop = np.searchsorted(block.document, [first, last])
    return replace(
        block,
        texts=block.texts[first:last],
        labels=block.labels[first:last],
        sources=block.sources[first:last],
        activations={name: rows[start:stop] for name, rows in block.activations.items()},
        document=block.document[start:stop] - first,
        char_start=block.char_start[start:stop],
        char_end=block.char_end[start:stop],
        tokens={name: ids[start:stop] for name, ids in block.tokens.items()},
    )


def test_a_chunk_of_zeros_is_written(build_store, make_block, tmp_path):
    store = build_store(tmp_path / "store.zarr", [[make_block((16,), scale=0.0)]])
    assert store.activations("b.mid", 0).tolist() == [[0.0] * 10] * 16


def test_a_writer_whose_append_failed_takes_no_more(make_schema, make_block, tmp_path, monkeypatch):
    machine = Machine(monkeypatch)
    with PartWriter(tmp_path / "store.zarr", make_schema()) as writer:
        machine.left = machine.done + 5
        with pytest.raises(Died):
            writer.append(make_block((9, 3)), 1)
        machine.left = 10**9
        with pytest.raises(AssertionError, match="open the part again"):
            writer.append(make_block((9, 3)), 1)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"chunk_rows": 8}, "chunk_rows: store has 16, now 8"),
        ({"widths": (6, 11)}, r"hookpoints\[1\]\.width: store has 10, now 11"),
        ({"fingerprints": {"a": "0f", "b": "ff"}}, r"fingerprints\.b: store has '1e', now 'ff'"),
        ({"config": {"seed": 1, "limit": 5}}, r"config\.limit: store has None, now 5"),
        ({"codec": "int8"}, "codec: store has 'none', now 'int8'"),
        ({"parts": 2}, "parts: store has 1, now 2"),
        ({"vocabulary": {"a": 9}}, r"vocabulary\.a: store has None, now 9"),
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


def test_a_part_beyond_those_of_the_schema_is_refused(make_schema, tmp_path):
    with pytest.raises(StoreError, match="has no part 2: it was begun for 2"):
        PartWriter(tmp_path / "store.zarr", make_schema(parts=2), 2)


def test_many_parts_may_begin_at_the_same_instant(make_schema, tmp_path, monkeypatch):
    errors, rename = [], os.replace

    def slow_replace(source, target):
        time.sleep(0.002)
        rename(source, target)

    monkeypatch.setattr(os, "replace", slow_replace)

    def begin(part):
        try:
            PartWriter(tmp_path / "store.zarr", make_schema(parts=8), part).close()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=begin, args=(part,)) for part in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


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
    block = make_block((3, 0, 9))
    block.activations["b.mid"][7:, 2] = value
    message = (
        rf"b\.mid: NaN .* before document 1, at character {block.char_end[7]};.*models\.b\.dty"
    )
    with (
        PartWriter(tmp_path / "store.zarr", make_schema()) as writer,
        pytest.raises(NonFinite, match=message) as refused,
    ):
        writer.append(block, 1)
    assert (refused.value.hookpoint, refused.value.row) == ("b.mid", 7)
    assert first_non_finite(block) == ("b.mid", 7)
    assert first_non_finite(make_block((3, 0, 9))) is None


def test_hashes_are_those_of_the_committed_documents(make_schema, make_block, tmp_path):
    blocks = [make_block((3, 0), seed=1), make_block((4,), seed=2)]
    with PartWriter(tmp_path / "store.zarr", make_schema(), commit_rows=100) as writer:
        assert writer.document_hashes().tolist() == []
        writer.append(blocks[0], 1)
        writer.pause()
        writer.append(blocks[1], 2)
        wanted = [document_hash(encode_text(text)) for text in blocks[0].texts]
        assert writer.document_hashes().tolist() == wanted


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
        {"sources": ["web", "web"]},
        {"excluded": {"outliers": -1}},
        {"excluded": {"": 1}},
        {"excluded": {"\x1b[31m": 1}},
        {"document": np.array([0, 0, 1], np.int32)},
        {"document": np.array([0, -1, 0], np.int32)},
        {"char_start": np.array([0, -1, 0], np.int32)},
        {"char_start": np.array([0, 999, 0], np.int32)},
    ],
)
def test_a_block_that_does_not_fit_together_cannot_be_made(wrong, make_block):
    with pytest.raises(AssertionError):
        replace(make_block((3,)), **wrong)
