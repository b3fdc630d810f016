import tempfile
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import StoreError
from store.appender import ArrayAppender
from store.bfloat16 import NATIVE as BFLOAT16
from store.chunks import check_chunk
from store.layout import Layout
from store.schema import chunk_file

CHUNK = 4
VALUES = np.arange(1, 31, dtype=np.int32)


LAYOUT = Layout(CHUNK, (), np.dtype(np.int32))
ROWS = np.random.default_rng(0).normal(size=(30, 5)).astype(BFLOAT16)
ENCODED = [Layout(CHUNK, (5,), BFLOAT16, codec) for codec in ("none", "lossless", "int8")]


def appender(folder, rows=0, layout=LAYOUT):
    return ArrayAppender(folder, layout, rows)


def finish(array):
    array.write_tail()
    array.write_shape()


def written(folder, pieces, layout=LAYOUT):
    array = appender(folder, layout=layout)
    for piece in pieces:
        array.append(piece)
        finish(array)
    return array


@given(st.lists(st.integers(0, 30), max_size=8))
@settings(max_examples=30, deadline=None)
def test_bytes_on_disk_do_not_depend_on_the_pieces(memory_folder, tree, cuts):
    folder = Path(tempfile.mkdtemp(dir=memory_folder))
    written(folder / "once", [VALUES])
    written(folder / "pieces", np.split(VALUES, sorted(cuts)))
    assert tree(folder / "once") == tree(folder / "pieces")


@given(committed=st.integers(0, 30), lost=st.integers(0, 30), later=st.integers(0, 30))
@settings(max_examples=40, deadline=None)
def test_an_array_cut_back_forgets_all_that_came_behind(
    memory_folder, tree, committed, lost, later
):
    folder = Path(tempfile.mkdtemp(dir=memory_folder))
    written(folder / "undisturbed", [VALUES[:committed], VALUES[:later]])
    written(folder / "cut", [VALUES[:committed], -VALUES[:lost]])
    array = appender(folder / "cut", rows=committed)
    array.append(VALUES[:later])
    finish(array)
    assert tree(folder / "undisturbed") == tree(folder / "cut")


@pytest.mark.parametrize("layout", ENCODED, ids=lambda layout: layout.codec)
@given(committed=st.integers(0, 30), lost=st.integers(0, 30))
@settings(max_examples=20, deadline=None)
def test_an_encoded_array_goes_on_byte_for_byte_where_it_was_cut(
    memory_folder, tree, layout, committed, lost
):
    folder = Path(tempfile.mkdtemp(dir=memory_folder))
    written(folder / "undisturbed", [ROWS], layout)
    written(folder / "cut", [ROWS[:committed], ROWS[:lost] * 2], layout)
    array = appender(folder / "cut", committed, layout)
    array.append(ROWS[committed:])
    finish(array)
    assert tree(folder / "undisturbed") == tree(folder / "cut")


def test_a_chunk_of_zeros_is_written_and_mappable(tmp_path):
    written(tmp_path / "x", [np.zeros(CHUNK, np.int32)])
    file = chunk_file(tmp_path / "x", 0, 1)
    assert check_chunk(file, LAYOUT).tolist() == [0] * CHUNK


def test_an_array_of_no_rows_opens_with_zarr(tmp_path):
    finish(appender(tmp_path / "x"))
    assert zarr.open_array(tmp_path / "x", mode="r").shape == (0,)


def test_going_on_from_a_damaged_chunk_is_refused(tmp_path):
    written(tmp_path / "x", [VALUES[:6]])
    file = chunk_file(tmp_path / "x", 1, 1)
    data = bytearray(file.read_bytes())
    data[0] ^= 1
    file.write_bytes(data)
    with pytest.raises(StoreError, match="bytes have changed"):
        appender(tmp_path / "x", rows=6)
