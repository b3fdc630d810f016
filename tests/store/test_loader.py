"""Which rows a loader gives, in which order, and how it goes on."""

from collections import Counter
from itertools import islice

import numpy as np
import pytest
import torch
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import StoreError

from .loading import BASE, loader, rows_of, take


def split_rows(store, split, fraction) -> set[int]:
    held_out = store.documents.validation_mask(fraction)[store.column("document")]
    return set(np.flatnonzero(held_out if split == "validation" else ~held_out).tolist())


@given(
    batch_rows=st.integers(1, 90),
    window_chunks=st.integers(1, 30),
    seed=st.integers(0, 2**32),
    split=st.sampled_from(["train", "validation"]),
)
@settings(max_examples=25, deadline=None)
def test_every_row_of_the_split_comes_once_per_epoch(
    large_store, batch_rows, window_chunks, seed, split
):
    options = {"window_chunks": window_chunks, "seed": seed, "split": split}
    mine = loader(large_store, batch_rows=batch_rows, **options)
    count = -(-2 * mine.rows_per_epoch // batch_rows)
    seen = Counter(np.concatenate(rows_of(islice(mine, count))).tolist())
    whole, surplus = divmod(count * batch_rows, mine.rows_per_epoch)
    assert set(seen) == split_rows(large_store, split, BASE.validation_fraction)
    assert Counter(seen.values()) == Counter(
        {whole: mine.rows_per_epoch - surplus, whole + 1: surplus}
    )


def test_an_epoch_that_ends_with_a_batch_holds_every_row_once(large_store):
    mine = loader(large_store)
    batches = take(large_store, 1, batch_rows=mine.rows_per_epoch)
    expected = split_rows(large_store, "train", BASE.validation_fraction)
    assert sorted(batches[0].rows) == sorted(expected)


def test_batches_hold_the_rows_that_they_name(large_store):
    group = zarr.open_group(large_store.path, mode="r")
    parts = [f"parts/{number:05d}/activations" for number in range(2)]
    for name in ("a.mid", "b.mid"):
        stored = np.concatenate([np.asarray(group[f"{part}/{name}"][:]) for part in parts])
        for batch in take(large_store, 20):
            found = batch.activations[name].view(torch.int16).numpy()
            np.testing.assert_array_equal(found, stored[batch.rows].view(np.int16))


def test_batches_are_bfloat16_of_the_width_of_the_hookpoint(large_store):
    batch = take(large_store, 1)[0]
    shapes = {name: (values.dtype, *values.shape) for name, values in batch.activations.items()}
    assert shapes == {"a.mid": (torch.bfloat16, 24, 6), "b.mid": (torch.bfloat16, 24, 10)}


@pytest.mark.parametrize(
    "changes",
    [{"threads": 1}, {"threads": 5}, {"prefetch": 1}, {"prefetch": 0}, {"prefetch": 17}],
)
def test_batches_do_not_depend_on_threads_or_prefetch(large_store, changes):
    expected, found = take(large_store, 40), take(large_store, 40, **changes)
    assert rows_of(found) == rows_of(expected)
    assert all(
        torch.equal(left.activations["b.mid"], right.activations["b.mid"])
        for left, right in zip(found, expected, strict=True)
    )


@pytest.mark.parametrize("change", [{"seed": 4}, {"window_chunks": 5}, {"split": "validation"}])
def test_another_order_is_another_sequence(large_store, change):
    assert rows_of(take(large_store, 5, **change)) != rows_of(take(large_store, 5))


def test_epochs_differ(large_store):
    size = loader(large_store).rows_per_epoch // 4
    mine = loader(large_store, batch_rows=size)
    mine_rows = rows_of(islice(iter(mine), 9))
    assert mine_rows[:4] != mine_rows[4:8]


def test_epochs_of_a_single_window_differ(build_store, tmp_path):
    store = build_store(tmp_path / "store.zarr", [[(16,)]])
    first, _, third, _ = rows_of(take(store, 4, batch_rows=8, validation_fraction=0.0))
    assert first != third


@given(st.integers(0, 100))
@settings(max_examples=20, deadline=None)
def test_seeking_equals_having_iterated(large_store, batch):
    mine = loader(large_store)
    mine.load_state_dict({**mine.state_dict(), "batches_taken": batch})
    found = next(iter(mine))
    assert found.rows.tolist() == loader(large_store).read(batch).rows.tolist()
    assert found.rows.tolist() == rows_of(islice(loader(large_store), batch, batch + 1))[0]


def test_a_loader_restored_in_a_later_epoch_goes_on_where_the_other_was(large_store):
    first = loader(large_store)
    iterator = iter(first)
    taken = list(islice(iterator, 70))
    assert 70 * BASE.batch_rows > 2 * first.rows_per_epoch
    expected = rows_of(islice(iterator, 10))
    second = loader(large_store, threads=1, prefetch=2)
    second.load_state_dict({**first.state_dict(), "batches_taken": len(taken)})
    assert rows_of(islice(iter(second), 10)) == expected


def test_the_state_counts_batches_handed_out_not_those_read_ahead(large_store):
    mine = loader(large_store, prefetch=9)
    list(islice(iter(mine), 3))
    assert mine.state_dict()["batches_taken"] == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 9}, "seed 3, now 9"),
        ({"batch_rows": 25}, "batch_rows 24, now 25"),
        ({"window_chunks": 5}, "'window_chunks': 4.*now.*'window_chunks': 5"),
        ({"validation_fraction": 0.5}, "rows_per_epoch"),
        ({"split": "validation"}, "rows_per_epoch"),
    ],
)
def test_a_state_of_another_order_is_refused(large_store, change, message):
    state = loader(large_store).state_dict()
    with pytest.raises(StoreError, match=message):
        loader(large_store, **change).load_state_dict(state)


def test_a_state_that_says_too_little_is_refused(large_store):
    state = loader(large_store).state_dict()
    del state["seed"]
    with pytest.raises(StoreError, match="seed None, now 3"):
        loader(large_store).load_state_dict(state)


def test_a_split_without_rows_is_refused(build_store, tmp_path):
    store = build_store(tmp_path / "store.zarr", [[(0, 0)]])
    with pytest.raises(StoreError, match="no rows in split 'train'"):
        loader(store)


@given(
    ranks=st.sampled_from([1, 2, 3, 4, 6, 8, 12, 24]),
    first=st.integers(0, 60),
    window_chunks=st.integers(1, 30),
)
@settings(max_examples=20, deadline=None)
def test_the_slices_of_all_ranks_are_the_global_batches(large_store, ranks, first, window_chunks):
    alone = loader(large_store, window_chunks=window_chunks)
    slices = [
        loader(large_store, window_chunks=window_chunks, ranks=ranks, rank=rank)
        for rank in range(ranks)
    ]
    for batch in range(first, first + 3):
        joined = np.concatenate([mine.read(batch).rows for mine in slices])
        assert joined.tolist() == alone.read(batch).rows.tolist()


@given(
    before=st.sampled_from([1, 2, 8]), after=st.sampled_from([1, 3, 4]), batches=st.integers(1, 50)
)
@settings(max_examples=15, deadline=None)
def test_going_on_with_another_number_of_ranks_continues_the_global_order(
    large_store, before, after, batches
):
    first = loader(large_store, ranks=before, rank=before - 1)
    list(islice(iter(first), batches))
    state = first.state_dict()
    resumed = [loader(large_store, ranks=after, rank=rank) for rank in range(after)]
    for mine in resumed:
        mine.load_state_dict(state)
    found = np.concatenate([next(iter(mine)).rows for mine in resumed])
    assert found.tolist() == loader(large_store).read(batches).rows.tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rank": 2, "ranks": 2}, "rank 2 is not one of 2 ranks"),
        ({"batch_rows": 0}, "batch_rows 0 is below 1"),
        ({"ranks": 0}, "ranks 0 is below 1"),
        ({"window_chunks": -3}, "window_chunks -3 is below 1"),
        ({"scales": {"a.mdi": 2.0}}, r"no hookpoint 'a.mdi'; it has a.mid, b.mid"),
    ],
)
def test_options_that_mean_nothing_are_refused(large_store, change, message):
    with pytest.raises(StoreError, match=message):
        loader(large_store, **change)


def test_two_iterators_over_one_loader_each_count_their_own_batches(large_store):
    mine = loader(large_store)
    first, second = iter(mine), iter(mine)
    next(first)
    next(first)
    assert next(second).rows.tolist() == mine.read(2).rows.tolist()
    assert next(first).rows.tolist() == mine.read(2).rows.tolist()
    assert mine.state_dict()["batches_taken"] == 3


def test_ranks_that_cannot_share_a_batch_equally_are_refused(large_store):
    with pytest.raises(StoreError, match="batch_rows 24 cannot be shared equally by 5 ranks"):
        loader(large_store, ranks=5)


def test_a_state_of_another_store_is_refused(build_store, make_schema, tmp_path):
    one = build_store(tmp_path / "one.zarr")
    other = build_store(tmp_path / "other.zarr", schema=make_schema(config={"seed": 2}))
    with pytest.raises(StoreError, match="not the same order of rows"):
        loader(other).load_state_dict(loader(one).state_dict())


@pytest.mark.parametrize("codec", ["none", "lossless", "int8"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("chunk_rows", [16, 1024])
def test_scaled_batches_of_every_codec(
    build_store, make_schema, tmp_path, codec, dtype, chunk_rows
):
    schema = make_schema(chunk_rows=chunk_rows, widths=(6, 130), codec=codec)
    store = build_store(tmp_path / "store.zarr", schema=schema)
    stored = torch.cat([store.activations("b.mid", chunk) for chunk in range(store.chunks)])
    for scale in (None, 0.37):
        scales = {} if scale is None else {"b.mid": scale}
        for batch in take(store, 5, dtype=dtype, scales=scales):
            found = batch.activations["b.mid"]
            expected = stored[torch.from_numpy(batch.rows)].float() * (scale or 1.0)
            assert found.dtype == getattr(torch, dtype)
            # int8 widens its bytes, not their bfloat16 rounding: one rounding less.
            tolerance = 2.0**-8 if codec == "int8" else 0.0
            expected = expected.to(found.dtype).float()
            torch.testing.assert_close(found.float(), expected, rtol=2 * tolerance, atol=0)
