import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import StoreError
from store.selection import RowSelection
from store.sweep import read_range, sweep


def everything(store, name):
    return torch.cat([store.activations(name, chunk) for chunk in range(store.chunks)])


def split_rows(store, split, fraction):
    held_out = store.documents.validation_mask(fraction)[store.column("document")]
    chosen = {"all": held_out | True, "train": ~held_out, "validation": held_out}[split]
    return np.flatnonzero(chosen).tolist()


@given(st.sampled_from(["all", "train", "validation"]), st.integers(1, 30), st.floats(0, 0.9))
@settings(max_examples=25, deadline=None)
def test_each_row_of_the_split_comes_once_in_order(large_store, split, batch_rows, fraction):
    batches = list(sweep(large_store, batch_rows, split, fraction))
    rows = [row for batch in batches for row in batch.rows.tolist()]
    assert rows == split_rows(large_store, split, fraction)


@given(st.integers(0, 500), st.integers(1, 30))
@settings(max_examples=25, deadline=None)
def test_a_limit_takes_an_even_share_of_every_chunk(large_store, limit, batch_rows):
    batches = sweep(large_store, batch_rows, "train", 0.3, limit)
    rows = [row for batch in batches for row in batch.rows.tolist()]
    split = split_rows(large_store, "train", 0.3)
    share = min(limit, len(split)) / len(split)
    assert len(rows) == min(limit, len(split))
    assert rows == sorted(set(rows) & set(split))
    chunk_of = np.repeat(np.arange(large_store.chunks), large_store.chunk_sizes)
    taken = np.bincount(chunk_of[rows], minlength=large_store.chunks)
    there = np.bincount(chunk_of[split], minlength=large_store.chunks)
    assert np.all(abs(taken - share * there) <= 1)


def test_the_share_of_a_limit_does_not_overflow_in_an_enormous_store(large_store, monkeypatch):
    sizes = np.full(large_store.chunks, 1 << 33)
    monkeypatch.setattr(RowSelection, "_count", lambda self: sizes)
    assert [
        len(batch.rows) for batch in sweep(large_store, 1000)
    ] == large_store.chunk_sizes.tolist()
    assert (
        sum(len(batch.rows) for batch in sweep(large_store, 9, limit=1 << 34)) == large_store.rows
    )


@pytest.mark.parametrize("name", ["a.mid", "b.mid"])
@pytest.mark.parametrize("fraction", [0.0, 0.4])
def test_batches_hold_the_rows_that_they_name(large_store, name, fraction):
    stored = everything(large_store, name)
    for batch in sweep(large_store, 7, "train", fraction):
        assert torch.equal(batch.activations[name], stored[torch.from_numpy(batch.rows)])


def test_batches_are_no_larger_than_asked(large_store):
    sizes = [len(batch.rows) for batch in sweep(large_store, 7)]
    assert 0 < max(sizes) <= 7


def test_whole_runs_of_rows_are_views_of_the_mapped_chunk(large_store):
    batches = sweep(large_store, 4)
    first, second = next(batches).activations["a.mid"], next(batches).activations["a.mid"]
    assert first.untyped_storage().data_ptr() == second.untyped_storage().data_ptr()


def test_chunks_that_the_limit_leaves_out_are_not_read(build_store, tmp_path):
    store = build_store(tmp_path / "store.zarr", [[(16, 16, 16)]])
    (store.parts[0].folder / "activations" / "a.mid" / "c" / "0" / "0").unlink()
    assert [batch.rows.tolist() for batch in sweep(store, 16, limit=1)] == [[32]]


@given(st.integers(0, 400), st.integers(0, 60))
@settings(max_examples=25, deadline=None)
def test_a_range_of_rows_is_what_lies_there(large_store, start, length):
    start, stop = min(start, large_store.rows), min(start + length, large_store.rows)
    if start < stop:
        found = read_range(large_store, start, stop)
        assert torch.equal(found.activations["b.mid"], everything(large_store, "b.mid")[start:stop])


@pytest.mark.parametrize("codec", ["lossless", "int8"])
def test_batches_of_encoded_chunks_are_those_that_decode(build_store, make_schema, tmp_path, codec):
    store = build_store(tmp_path / "store.zarr", schema=make_schema(codec=codec))
    stored = everything(store, "b.mid")
    for batch in sweep(store, 7, "train", 0.4):
        assert torch.equal(batch.activations["b.mid"], stored[torch.from_numpy(batch.rows)])


def test_damage_is_refused_when_a_chunk_is_first_touched(build_store, tmp_path, flip):
    store = build_store(tmp_path / "store.zarr")
    file = flip(store.path / "parts/00000/activations/b.mid/c/1/0")
    batches = sweep(store, 16)
    assert next(batches).rows[0] == 0
    with pytest.raises(StoreError, match=re.escape(str(file)) + ": checksum"):
        list(batches)


def test_checksums_are_compared_once(build_store, tmp_path, flip):
    store = build_store(tmp_path / "store.zarr")
    list(sweep(store, 16))
    flip(store.path / "parts/00000/activations/b.mid/c/1/0")
    assert sum(len(batch.rows) for batch in sweep(store, 16)) == store.rows


def test_checking_can_be_left_out(build_store, tmp_path, flip):
    store = build_store(tmp_path / "store.zarr")
    flip(store.path / "parts/00000/activations/b.mid/c/1/0")
    assert sum(len(batch.rows) for batch in sweep(store, 16, verify=False)) == store.rows
