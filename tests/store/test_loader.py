import gc
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import StoreError
from store.chunks import decode_chunk
from store.loader import LoaderOptions, ShuffledLoader

BASE = LoaderOptions(batch_rows=24, seed=3, window_chunks=4, validation_fraction=0.2)


def loader(store, **changes):
    return ShuffledLoader(store, LoaderOptions(**{**vars(BASE), **changes}))


def take(store, count, **changes):
    iterator = iter(loader(store, **changes))
    batches = list(islice(iterator, count))
    iterator.close()
    return batches


def rows_of(batches) -> list[list[int]]:
    """The rows of each batch, in the order in which the batch holds them."""
    return [batch.rows.tolist() for batch in batches]


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


def mapped_chunks(store) -> int:
    """Chunk files of activations that this process has mapped, as the kernel says."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return len({line.split()[-1] for line in lines if f"{store.path}/parts" in line})


@pytest.fixture
def paged_store(build_store, make_schema, tmp_path):
    """Twelve chunks of 1,024 rows: whole pages, so they are mapped side by side."""
    return build_store(tmp_path / "store.zarr", [[(400,) * 30]], make_schema(chunk_rows=1024))


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel")
def test_mapped_chunks_stay_within_the_open_windows(paged_store):
    mine = loader(paged_store, window_chunks=2, batch_rows=200, validation_fraction=0.0)
    windows = 2 + 1  # read, made ready, and for a moment the one before
    bound = windows * 2 * len(paged_store.schema.hookpoints)
    most = 0
    for _ in islice(mine, 200):
        most = max(most, mapped_chunks(paged_store))
    assert 0 < most <= bound


def test_chunks_mapped_side_by_side_hold_what_chunks_read_one_by_one_do(paged_store):
    stored = {
        name: torch.cat([paged_store.activations(name, c) for c in range(paged_store.chunks)])
        for name in ("a.mid", "b.mid")
    }
    for batch in take(paged_store, 60, batch_rows=300):
        for name, values in stored.items():
            assert torch.equal(batch.activations[name], values[torch.from_numpy(batch.rows)])


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel")
def test_mapped_chunks_hold_no_file_descriptors(large_store):
    before = len(list(Path("/proc/self/fd").iterdir()))
    mapped = [large_store.activations("a.mid", chunk) for chunk in range(large_store.chunks)]
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert mapped


def test_dropping_the_iterator_ends_its_threads(large_store):
    iterator = iter(loader(large_store, prefetch=8))
    next(iterator)
    assert loader_threads()
    del iterator
    gc.collect()
    assert not loader_threads()


def loader_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("loader")]


def test_a_program_that_ends_in_the_middle_of_a_batch_ends_quietly(large_store):
    program = (
        "import os, sys, numpy, torch; from pathlib import Path\n"
        "from store.loader import *; from store.reader import Store\n"
        "loader = ShuffledLoader(Store(Path(sys.argv[1])), LoaderOptions(8, prefetch=50))\n"
        "batches = iter(loader); next(batches)\n"
        "other = (batch for batch in loader); next(other)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, str(large_store.path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_a_chunk_that_is_missing_is_named_to_the_consumer(build_store, tmp_path):
    store = build_store(tmp_path / "store.zarr")
    missing = store.parts[0].folder / "activations" / "b.mid" / "c" / "1" / "0"
    missing.unlink()
    with pytest.raises(StoreError, match=r"b\.mid/c/1/0: chunk cannot be read"):
        take(store, 10, validation_fraction=0.0)


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


def test_looking_at_another_batch_leaves_the_windows_of_an_iteration_open(
    build_store, make_schema, tmp_path, monkeypatch
):
    store = build_store(tmp_path / "store.zarr", [[(16,) * 24]], make_schema(codec="lossless"))
    decoded = Counter()

    def counted(path, *arguments):
        decoded[path] += 1
        return decode_chunk(path, *arguments)

    monkeypatch.setattr("store.arena.decode_chunk", counted)
    mine = loader(store, window_chunks=6, batch_rows=8, prefetch=1, validation_fraction=0.0)
    batches = iter(mine)
    next(batches)
    mine.read(30)
    for _ in range(5):
        next(batches)
    assert max(decoded.values()) == 1


def test_an_iteration_that_ends_waits_for_no_chunk_that_is_not_begun(
    build_store, make_schema, tmp_path, monkeypatch
):
    store = build_store(tmp_path / "store.zarr", [[(16,) * 60]], make_schema(codec="lossless"))
    decoded = []

    def slow(path, *arguments):
        decoded.append(path)
        time.sleep(0.02)
        raise StoreError(f"{path}: damaged")

    monkeypatch.setattr("store.arena.decode_chunk", slow)
    with pytest.raises(StoreError, match="damaged"):
        take(store, 1)
    mine = len(decoded)
    assert mine < 20
    monkeypatch.undo()
    assert take(store, 1)[0].rows.shape == (24,)


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


def test_a_batch_that_is_kept_is_never_written_over(large_store):
    kept = take(large_store, 50, batch_rows=8, prefetch=1)
    again = take(large_store, 50, batch_rows=8, prefetch=1)
    for left, right in zip(kept, again, strict=True):
        assert torch.equal(left.activations["a.mid"], right.activations["a.mid"])


def test_batches_that_are_dropped_lend_their_memory_to_later_ones(large_store):
    iterator = iter(loader(large_store, prefetch=2))
    places = {next(iterator).activations["a.mid"].data_ptr() for _ in range(60)}
    iterator.close()
    assert len(places) <= 6


def test_damage_is_refused_before_a_batch_holds_it(build_store, tmp_path, flip):
    store = build_store(tmp_path / "store.zarr")
    file = flip(store.path / "parts/00000/activations/b.mid/c/1/0")
    with pytest.raises(StoreError, match=re.escape(str(file)) + ": checksum"):
        take(store, 1, validation_fraction=0.0)


def test_damage_of_a_mapped_chunk_is_refused(paged_store, flip):
    file = flip(paged_store.path / "parts/00000/activations/a.mid/c/3/0")
    with pytest.raises(StoreError, match=re.escape(str(file)) + ": checksum"):
        take(paged_store, 200, batch_rows=100, validation_fraction=0.0)


def test_checking_can_be_turned_off(paged_store, flip):
    flip(paged_store.path / "parts/00000/activations/a.mid/c/3/0")
    assert len(take(paged_store, 200, batch_rows=100, verify=False)) == 200


def test_a_chunk_is_checked_once_per_store(paged_store, flip):
    take(paged_store, 200, batch_rows=100, validation_fraction=0.0)
    assert paged_store.checked.all()
    flip(paged_store.path / "parts/00000/activations/a.mid/c/3/0")
    assert len(take(paged_store, 200, batch_rows=100)) == 200


@pytest.mark.parametrize(("window_chunks", "times"), [(None, 1), (2, 4)])
def test_chunks_of_a_store_of_one_window_are_decoded_once_for_all_epochs(
    build_store, make_schema, tmp_path, monkeypatch, window_chunks, times
):
    store = build_store(tmp_path / "store.zarr", schema=make_schema(codec="lossless"))
    decoded = Counter()

    def counted(path, *arguments):
        decoded[path] += 1
        return decode_chunk(path, *arguments)

    monkeypatch.setattr("store.arena.decode_chunk", counted)
    take(store, 4 * store.rows // 8, batch_rows=8, window_chunks=window_chunks, prefetch=1)
    assert len(decoded) == 2 * store.chunks
    assert abs(max(decoded.values()) - times) <= (times > 1)
