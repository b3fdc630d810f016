"""What a loader holds, lends, checks and lets go of."""

import gc
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
import torch

from pipeline.errors import StoreError
from store.chunks import decode_chunk

from .loading import loader, take


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
