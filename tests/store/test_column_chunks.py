"""Stores whose row columns have fewer, larger chunks than their activations."""

import dataclasses

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from store.layout import default_column_chunks
from store.reader import Store
from store.repair import repair
from store.selection import RowSelection
from store.verify import verify
from store.writer import PartWriter

COLUMNS = ("document", "char_start", "char_end", "token_a", "token_b")
LENGTHS = [(5, 0, 9, 12), (0,), (20, 3), (1,) * 7, (16, 2)]


@pytest.fixture(scope="module")
def stores(build_store, make_schema, tmp_path_factory):
    """The same rows in columns of three chunks each, and of one."""
    folder = tmp_path_factory.mktemp("columns")
    parts = [LENGTHS, LENGTHS[::-1]]
    return [build_store(folder / f"{n}.zarr", parts, make_schema(column_chunks=n)) for n in (3, 1)]


@given(st.integers(1, 1 << 24))
def test_files_of_columns_have_up_to_a_mebibyte(chunk_rows):
    chunks = default_column_chunks(chunk_rows)
    assert 1 <= chunks <= 16
    assert chunks == 1 or 4 * chunks * chunk_rows <= 1 << 20
    assert chunks == 16 or 4 * (chunks + 1) * chunk_rows > 1 << 20


@pytest.mark.parametrize("name", COLUMNS)
def test_columns_hold_what_they_would_in_small_chunks(stores, name):
    wide, narrow = stores
    np.testing.assert_array_equal(wide.column(name), narrow.column(name))
    for chunk in range(wide.chunks):
        np.testing.assert_array_equal(
            wide.column_chunk(name, chunk), narrow.column_chunk(name, chunk)
        )


def test_columns_have_fewer_files(stores):
    wide, narrow = (len(list(s.path.glob("parts/00000/rows/document/c/*"))) for s in stores)
    assert (wide, narrow) == (2, 5)


@given(st.floats(0, 1, exclude_max=True), st.sampled_from(["train", "validation", "all"]))
@settings(max_examples=20, deadline=None)
def test_splits_are_the_same(stores, fraction, split):
    wide, narrow = (RowSelection(store, split, fraction) for store in stores)
    assert wide.chunk_sizes.tolist() == narrow.chunk_sizes.tolist()
    for chunk in range(stores[0].chunks):
        assert wide.in_chunk(chunk).tolist() == narrow.in_chunk(chunk).tolist()


def test_zarr_reads_them(stores):
    group = zarr.open_group(stores[0].path, mode="r")
    ends = np.concatenate([group[f"parts/{part:05d}/rows/char_end"][:] for part in range(2)])
    np.testing.assert_array_equal(ends, stores[0].column("char_end"))


def test_they_pass_verification(stores):
    assert verify(stores[0].path).problems == []


@pytest.mark.parametrize(
    "name", ["activations/b.mid/c/2/0", "rows/char_end/c/1", "rows/document/c/0"]
)
def test_damage_is_found_cut_off_and_harvested_again(
    stores, make_block, tmp_path, tree, flip, name
):
    schema = dataclasses.replace(stores[0].schema, parts=1)
    blocks = [make_block(lengths, seed=n, schema=schema) for n, lengths in enumerate(LENGTHS)]

    def harvest(path):
        with PartWriter(path, schema) as writer:
            for cursor in range(writer.cursor, len(blocks)):
                writer.append(blocks[cursor], cursor + 1)
            writer.finish()

    harvest(tmp_path / "undisturbed.zarr")
    harvest(tmp_path / "damaged.zarr")
    file = flip(tmp_path / "damaged.zarr/parts/00000" / name)
    assert any(str(file) in problem for problem in verify(tmp_path / "damaged.zarr").problems)
    repair(tmp_path / "damaged.zarr")
    assert verify(tmp_path / "damaged.zarr").problems == []
    assert not Store(tmp_path / "damaged.zarr").complete
    harvest(tmp_path / "damaged.zarr")
    assert tree(tmp_path / "damaged.zarr") == tree(tmp_path / "undisturbed.zarr")
