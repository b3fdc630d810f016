"""Shuffled batches from a store against what users write today, and against the machine's limit.

All contenders of a width read the same rows of two models in one run, page cache warm, in turns;
the median of the turns counts. One batch: `--batch-rows` rows of both models, delivered as
bfloat16 unless it says otherwise.

    python -m benchmarks.loader                      # speed, then memory; 17 GB of disk, 5 minutes
    python -m benchmarks.loader --quick              # speed alone, on less data, in a minute
"""

from __future__ import annotations

import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.synthetic import noise_store
from store.chunks import to_numpy
from store.loader import LoaderOptions, ShuffledLoader
from store.reader import Store
from store.window import default_window_chunks

WIDTHS = (512, 2304)
TURNS = 5
MEMCPY_THREADS = 2
RUN = 16
SIZES = (1, 16)

Source = Callable[[], Iterator[object]]


def main(
    gigabytes: Annotated[float, typer.Option(help="Size of each store.")] = 2.0,
    batch_rows: Annotated[int, typer.Option(help="Rows per batch.")] = 4096,
    quick: Annotated[bool, typer.Option("--quick", help="0.5 GB a store.")] = False,
) -> None:
    """Prints rows and bytes per second of each contender, and ratios."""
    for width in WIDTHS:
        rows = int((0.5 if quick else gigabytes) * 1e9 / (4 * width))
        with tempfile.TemporaryDirectory() as folder:
            store = noise_store(Path(folder) / "store.zarr", rows, (width, width))
            flat = _flat_files(store, Path(folder))
            _print(f"widths {width} + {width}", measure(store, flat, batch_rows), width)
    if not quick:
        _memory()


def measure(store: Store, flat: list[np.memmap], batch_rows: int) -> dict[str, float]:
    """Rows per second of every contender, the median of turns taken one after another."""
    epoch = store.rows // batch_rows
    contenders: dict[str, tuple[Source, int]] = {
        "(a) this loader": (lambda: _loader(store, batch_rows), epoch),
        "    first epoch, checksums compared": (
            lambda: _loader(Store(store.path), batch_rows, warm=0),
            epoch,
        ),
        "    same, not compared": (
            lambda: _loader(Store(store.path), batch_rows, warm=0, verify=False),
            epoch,
        ),
        "    as scaled float32": (lambda: _loader(store, batch_rows, dtype="float32"), epoch),
        "(b) DataLoader over memmap, 0 workers": (lambda: _users(flat, batch_rows, 0), 4),
        "    1 worker": (lambda: _users(flat, batch_rows, 1), 4),
        "    2 workers": (lambda: _users(flat, batch_rows, 2), 4),
        "    memmap, one fancy index per batch": (lambda: _fancy(flat, batch_rows), epoch // 2),
        "(c) memcpy of the same bytes": (lambda: _memcpy(flat, batch_rows), epoch),
        f"    gather of runs of {RUN} rows": (lambda: _runs(flat, batch_rows), epoch),
    }
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(TURNS):
        for name, (source, batches) in contenders.items():
            _touch(flat)
            rates[name].append(_rate(source(), batches, batch_rows))
    return {name: statistics.median(values) for name, values in rates.items()}


def _touch(flat: list[np.memmap]) -> None:
    """Has every page in memory and mapped: some systems take back what was idle for a turn."""
    for values in flat:
        np.bitwise_or.reduce(values.reshape(-1)[::2048])


def _loader(store: Store, batch_rows: int, warm: int = 8, **options: object) -> Iterator[object]:
    scales = {"a": 0.5, "b": 0.25} if options.get("dtype") == "float32" else {}
    chosen = LoaderOptions(batch_rows, threads=2, scales=scales, **options)  # type: ignore[arg-type]
    batches = iter(ShuffledLoader(store, chosen))
    for _ in range(warm):
        next(batches)
    return batches


class RowDataset(torch.utils.data.Dataset):
    """One item per row: what users write."""

    def __init__(self, flat: list[np.memmap]) -> None:
        self.flat = flat

    def __len__(self) -> int:
        return len(self.flat[0])

    def __getitem__(self, row: int) -> list[torch.Tensor]:
        return [
            torch.from_numpy(np.array(values[row])).view(torch.bfloat16) for values in self.flat
        ]


def _users(flat: list[np.memmap], batch_rows: int, workers: int) -> Iterator[object]:
    batches = torch.utils.data.DataLoader(
        RowDataset(flat), batch_rows, shuffle=True, num_workers=workers
    )
    source = iter(batches)
    next(source)  # the workers are there
    return source


def _fancy(flat: list[np.memmap], batch_rows: int) -> Iterator[object]:
    generator = np.random.default_rng(0)
    while True:
        picked = generator.integers(0, len(flat[0]), batch_rows)
        yield [torch.from_numpy(values[picked]).view(torch.bfloat16) for values in flat]


def _memcpy(flat: list[np.memmap], batch_rows: int) -> Iterator[object]:
    """Contiguous rows into reused buffers, a batch per thread as the loader does it."""

    def copy(number: int) -> None:
        start = number * batch_rows % (len(flat[0]) - batch_rows)
        for values, out in zip(flat, buffers[number % len(buffers)], strict=True):
            np.copyto(out, values[start : start + batch_rows])

    return _threaded(copy, buffers := _buffers(flat, batch_rows))


def _runs(flat: list[np.memmap], batch_rows: int) -> Iterator[object]:
    """What a loader could do if rows lay shuffled in the store: gather runs of rows."""
    generator = np.random.default_rng(0)
    last = len(flat[0]) // RUN

    def copy(number: int) -> None:
        picked = generator.integers(0, last, batch_rows // RUN)
        for values, out in zip(flat, buffers[number % len(buffers)], strict=True):
            runs = values[: last * RUN].reshape(last, -1)
            np.take(runs, picked, axis=0, out=out.reshape(len(picked), -1), mode="clip")

    return _threaded(copy, buffers := _buffers(flat, batch_rows))


def _buffers(flat: list[np.memmap], batch_rows: int) -> list[list[np.ndarray]]:
    """Batch memory that is there already: np.full writes it, np.zeros would only promise it."""
    shapes = [(batch_rows, values.shape[1]) for values in flat]
    return [[np.full(shape, 1, np.int16) for shape in shapes] for _ in range(6)]


def _threaded(copy: Callable[[int], None], buffers: list[list[np.ndarray]]) -> Iterator[object]:
    with ThreadPoolExecutor(MEMCPY_THREADS) as pool:
        ahead = [pool.submit(copy, number) for number in range(4)]
        for number in itertools.count(4):
            ahead.pop(0).result()
            ahead.append(pool.submit(copy, number))
            yield None


def _flat_files(store: Store, folder: Path) -> list[np.memmap]:
    flat = []
    for hookpoint in store.schema.hookpoints:
        file = folder / f"{hookpoint.name}.bin"
        with open(file, "wb") as out:
            for chunk in range(store.chunks):
                to_numpy(store.activations(hookpoint.name, chunk)).view(np.int16).tofile(out)
        flat.append(np.memmap(file, np.int16, "r").reshape(-1, hookpoint.width))
    return flat


def _rate(source: Iterator[object], batches: int, batch_rows: int) -> float:
    begin = time.perf_counter()
    for _ in itertools.islice(source, batches):
        pass
    rate = batches * batch_rows / (time.perf_counter() - begin)
    if hasattr(source, "close"):
        source.close()
    return rate


def _memory() -> None:
    """Memory of a process that trains for an epoch of the larger store."""
    table = Table("store", "window", "own memory", "page cache mapped", title="memory")
    for gigabytes in SIZES:
        rows = gigabytes * 10**9 // (4 * WIDTHS[1])
        with tempfile.TemporaryDirectory() as folder:
            store = noise_store(Path(folder) / "s.zarr", rows, (WIDTHS[1],) * 2, parts=gigabytes)
            batches = str(SIZES[-1] * 10**9 // (4 * WIDTHS[1]) // 4096)
            for window in ([], ["16"]):
                command = [sys.executable, "-m", "benchmarks.memory", str(store.path), batches]
                output = subprocess.run([*command, *window], check=True, capture_output=True)
                most = json.loads(output.stdout)
                table.add_row(
                    f"{gigabytes} GB, {store.chunks} chunks",
                    window[0] if window else f"{default_window_chunks(store)} (default)",
                    *(f"{most[kind] / 1e9:.2f} GB" for kind in ("anonymous", "mapped")),
                )
    Console(width=88).print(table)


def _print(title: str, rates: dict[str, float], width: int) -> None:
    table = Table("", "rows/s", "GB/s", "(a) / this", title=title)
    ours = rates["(a) this loader"]
    for name, rate in rates.items():
        table.add_row(name, f"{rate:,.0f}", f"{rate * 4 * width / 1e9:.2f}", f"{ours / rate:.2f}")
    Console(width=88).print(table)


if __name__ == "__main__":
    typer.run(main)
