import gc
import subprocess
import sys
import threading
from collections import Counter
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import StoreError
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
    epochs = 2
    count = -(-epochs * mine.rows_per_epoch // batch_rows)
    chunks, rows = (
        np.concatenate(places)
        for places in zip(*(mine.locate(batch) for batch in range(count)), strict=True)
    )
    seen = Counter((large_store.chunk_rows_before[chunks] + rows).tolist())
    whole, surplus = divmod(count * batch_rows, mine.rows_per_epoch)
    assert set(seen) == split_rows(large_store, split, BASE.validation_fraction)
    assert Counter(seen.values()) == Counter(
        {whole: mine.rows_per_epoch - surplus, whole + 1: surplus}
    )


def test_an_epoch_that_ends_with_a_batch_holds_every_row_once(large_store):
    mine = loader(large_store)
    batches = take(large_store, 1, batch_rows=mine.rows_per_epoch)
    expected = split_rows(large_store, "train", BASE.validation_fraction)
    assert batches[0].rows.tolist() == sorted(expected)


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


def test_rows_of_a_batch_are_in_storage_order(large_store):
    for rows in rows_of(take(large_store, 30)):
        assert all(left <= right for left, right in pairwise(rows))


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
    chunks, rows = loader(large_store).locate(batch)
    assert found.rows.tolist() == (large_store.chunk_rows_before[chunks] + rows).tolist()


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
        ({"window_chunks": 5}, "window_chunks 4, now 5"),
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


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel")
def test_mapped_chunks_stay_within_two_windows(build_store, tmp_path):
    store = build_store(tmp_path / "store.zarr", [[(16,) * 40]])
    mine = loader(store, window_chunks=3, threads=2, prefetch=6, validation_fraction=0.0)
    bound = 2 * 3 * len(store.schema.hookpoints) + mine.options.threads
    most = 0
    for _ in islice(mine, 120):
        most = max(most, mapped_chunks(store))
    assert 0 < most <= bound


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
        "import sys; from pathlib import Path\n"
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
    with pytest.raises(StoreError, match=r"b\.mid/c/1/0: chunk is missing"):
        take(store, 10, validation_fraction=0.0)
