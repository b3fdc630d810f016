"""What it costs to open a store does not grow with its chunks."""

import json
import time

import pytest

from store.arrays import part_arrays
from store.reader import Store

from .contents import forge

CHUNKS = 10_000


@pytest.fixture
def huge(build_store, tmp_path):
    """A store that says that it has ten thousand chunks; opening reads none of them.

    Of each array only the last one is there, which is all that opening looks for.
    """
    store = build_store(tmp_path / "store.zarr", [[(16,)]])
    folder, rows = store.parts[0].folder, CHUNKS * 16
    attributes = json.loads((folder / "zarr.json").read_bytes())["attributes"]
    statistics = {
        name: {**found, "count": rows, "norm_bins": {"0": rows}}
        for name, found in attributes["statistics"].items()
    }
    forge(folder, rows=rows, statistics=statistics, complete=False)
    for array in part_arrays(store.schema):
        if array.unit == "rows":
            last = array.file(folder, CHUNKS - 1)
            last.parent.mkdir(parents=True, exist_ok=True)
            last.touch()
    return store.path


def test_a_store_of_ten_thousand_chunks_opens_at_once(huge):
    times = []
    for _ in range(3):
        start = time.perf_counter()
        store = Store(huge)
        assert (store.rows, len(store.chunk_sizes)) == (CHUNKS * 16, CHUNKS)
        assert store.chunk_rows_before[-1] == (CHUNKS - 1) * 16
        assert store.statistics("a.mid").count == store.rows
        times.append(time.perf_counter() - start)
    assert min(times) < 0.25, "about 5 ms on an idle core"
