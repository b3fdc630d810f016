"""Shuffled batches from a store against what a user would write instead, on the same bytes.

memmap: one flat bfloat16 file per hookpoint, random rows by fancy indexing (a common loader).
memory: the same rows in RAM, gathered by torch.index_select: the limit.

    python -m benchmarks.loader --rows 300000
"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

from store.block import Block
from store.chunks import to_numpy
from store.loader import LoaderOptions, ShuffledLoader
from store.reader import Store
from store.schema import Hookpoint, StoreSchema
from store.writer import PartWriter


def main(
    rows: Annotated[int, typer.Option(help="Rows of the store.")] = 200_000,
    widths: Annotated[tuple[int, int], typer.Option(help="Widths of the hookpoints.")] = (512, 768),
    batch_rows: Annotated[int, typer.Option(help="Rows per batch.")] = 4096,
    batches: Annotated[int, typer.Option(help="Batches timed.")] = 60,
) -> None:
    """Prints rows and bytes per second of each, warm, and ratios."""
    with tempfile.TemporaryDirectory() as folder:
        store = _build(Path(folder) / "store.zarr", rows, widths)
        flat = _flat_files(store, Path(folder))
        loader = ShuffledLoader(store, LoaderOptions(batch_rows=batch_rows, prefetch=4))
        contenders = {
            "this store": iter(loader),
            "flat memmap, fancy indexing": _memmap_batches(flat, rows, batch_rows),
            "rows in memory, index_select": _memory_batches(store, rows, batch_rows),
        }
        rates = {name: _rate(source, batches, batch_rows) for name, source in contenders.items()}
    bytes_per_row = 2 * sum(widths)
    table = Table("loader", "rows/s", "GB/s", "ratio")
    for name, rate in rates.items():
        ratio = rate / rates["this store"]
        table.add_row(name, f"{rate:,.0f}", f"{rate * bytes_per_row / 1e9:.2f}", f"{ratio:.2f}")
    Console().print(table)


def _build(path: Path, rows: int, widths: tuple[int, int]) -> Store:
    hookpoints = tuple(Hookpoint(name, name, w) for name, w in zip("ab", widths, strict=True))
    zeros = np.zeros(rows, np.int32)
    block = Block(
        texts=["text"],
        labels=[""],
        activations={h.name: torch.randn(rows, h.width).bfloat16() for h in hookpoints},
        document=zeros,
        char_start=zeros,
        char_end=zeros,
        tokens={"a": zeros, "b": zeros},
        tokens_read={"a": rows, "b": rows},
        tokens_paired={"a": rows, "b": rows},
    )
    with PartWriter(path, StoreSchema(hookpoints, 8192, {}, {})) as writer:
        writer.append(block, 1)
        writer.finish()
    return Store(path)


def _flat_files(store: Store, folder: Path) -> list[np.memmap]:
    flat = []
    for hookpoint in store.schema.hookpoints:
        pieces = [store.activations(hookpoint.name, chunk) for chunk in range(store.chunks)]
        file = folder / f"{hookpoint.name}.bin"
        to_numpy(torch.cat(pieces)).view(np.int16).tofile(file)
        flat.append(np.memmap(file, np.int16, "r").reshape(-1, hookpoint.width))
    return flat


def _memmap_batches(flat: list[np.memmap], rows: int, batch: int) -> Iterator[list[torch.Tensor]]:
    generator = np.random.default_rng(0)
    while True:
        picked = generator.integers(0, rows, batch)
        yield [torch.from_numpy(values[picked]).view(torch.bfloat16) for values in flat]


def _memory_batches(store: Store, rows: int, batch: int) -> Iterator[list[torch.Tensor]]:
    names = [hookpoint.name for hookpoint in store.schema.hookpoints]
    held = [torch.cat([store.activations(n, c) for c in range(store.chunks)]) for n in names]
    while True:
        picked = torch.randint(rows, (batch,))
        yield [values.index_select(0, picked) for values in held]


def _rate(source: Iterator[object], batches: int, batch_rows: int) -> float:
    for _ in itertools.islice(source, 60):
        pass
    begin = time.perf_counter()
    for _ in itertools.islice(source, batches):
        pass
    return batches * batch_rows / (time.perf_counter() - begin)


if __name__ == "__main__":
    typer.run(main)
