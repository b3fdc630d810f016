import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import StoreError
from store.selection import RowSelection


def rows(store, split, fraction):
    selection = RowSelection(store, split, fraction)
    pieces = [
        selection.in_chunk(chunk) + store.chunk_rows_before[chunk] for chunk in range(store.chunks)
    ]
    return np.concatenate(pieces)


@given(st.floats(0, 1, exclude_max=True))
@settings(max_examples=25, deadline=None)
def test_train_and_validation_together_are_all_rows_once(large_store, fraction):
    both = [rows(large_store, split, fraction) for split in ("train", "validation")]
    assert sorted(np.concatenate(both)) == list(range(large_store.rows))


@given(st.floats(0, 1, exclude_max=True))
@settings(max_examples=25, deadline=None)
def test_no_document_is_on_both_sides(large_store, fraction):
    document = large_store.column("document")
    train, validation = (
        set(document[rows(large_store, split, fraction)]) for split in ("train", "validation")
    )
    assert not train & validation


def test_chunk_sizes_count_the_rows_of_the_split(large_store):
    selection = RowSelection(large_store, "validation", 0.3)
    counted = [len(selection.in_chunk(chunk)) for chunk in range(large_store.chunks)]
    assert list(selection.chunk_sizes) == counted


def test_a_fraction_of_zero_holds_nothing_out(large_store):
    assert RowSelection(large_store, "train", 0.0).rows == large_store.rows


def test_held_out_documents_grow_with_the_fraction(large_store):
    small, large = (large_store.documents.validation_mask(f) for f in (0.2, 0.6))
    assert np.all(large[small])


def test_about_the_asked_fraction_is_held_out(build_store, make_block, tmp_path):
    store = build_store(tmp_path / "store.zarr", [[make_block((0,) * 4000)]])
    share = store.documents.validation_mask(0.1).mean()
    assert 0.08 < share < 0.12


def test_the_side_of_a_document_depends_on_its_text_alone(build_store, make_block, tmp_path):
    block = make_block((1,) * 40, seed=4)
    other = make_block((2,) * 15, seed=8, labels=("else",))
    alone = build_store(tmp_path / "alone.zarr", [[block]])
    behind = build_store(tmp_path / "behind.zarr", [[other], [other, block]])
    sides = alone.documents.validation_mask(0.5)
    assert sides.any()
    assert behind.documents.validation_mask(0.5)[-40:].tolist() == sides.tolist()


@pytest.mark.parametrize("value", [-1, 2, 2**31 - 1])
def test_a_row_of_a_document_that_is_not_there_is_refused(build_store, tmp_path, value):
    store = build_store(tmp_path / "store.zarr", [[(9, 12)]])
    file = store.path / "parts/00000/rows/document/c/0"
    file.write_bytes(np.int32(value).tobytes() + file.read_bytes()[4:])
    with pytest.raises(StoreError, match="refers to a document not there; run `store verify"):
        RowSelection(store, "train", 0.5).in_chunk(0)


def test_opening_reads_nothing_that_grows_with_the_rows(build_store, tmp_path):
    store = build_store(tmp_path / "store.zarr")
    shutil.rmtree(store.path / "parts/00000/rows")
    shutil.rmtree(store.path / "parts/00000/activations")
    assert RowSelection(store, "train", 0.0).rows == store.rows
