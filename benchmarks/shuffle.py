"""How well the loader shuffles, by window: the rows of one document should not meet in a batch.

For one epoch of batches in their real order: pairs of rows of one document in a batch, against
what a uniform shuffle gives on average (an exact figure), and the correlation of a row's place in
the epoch with its document's place in the store (a uniform shuffle: 0).

    python -m benchmarks.shuffle [--store runs/demo/store.zarr]
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.demo_run import demo_store
from benchmarks.synthetic import noise_store
from store.loader import LoaderOptions, ShuffledLoader
from store.reader import Store
from store.window import default_window_chunks

CHUNKS = 200


def main(
    store: Annotated[Path | None, typer.Option(help="A store of the demo.")] = None,
    batch_rows: Annotated[int, typer.Option(help="Rows per batch.")] = 2048,
) -> None:
    """Prints one table per store."""
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        synthetic = noise_store(scratch / "noise.zarr", CHUNKS * 1024, (4, 4), chunk_rows=1024)
        for name, read in (("demo", demo_store(store, scratch)), ("synthetic", synthetic)):
            _print(name, read, batch_rows)


def same_document_pairs(document: np.ndarray, batch_rows: int) -> float:
    """Pairs of rows of one document per whole batch; `document` (rows,) in their order."""
    whole = len(document) // batch_rows * batch_rows
    pairs = 0
    for batch in document[:whole].reshape(-1, batch_rows):
        counts = np.unique(batch, return_counts=True)[1]
        pairs += int((counts * (counts - 1) // 2).sum())
    return pairs / max(1, whole // batch_rows)


def uniform_pairs(document: np.ndarray, batch_rows: int) -> float:
    """The expectation of `same_document_pairs` under a uniform shuffle."""
    counts = np.unique(document, return_counts=True)[1].astype(float)
    rows = len(document)
    same = (counts * (counts - 1)).sum() / (rows * (rows - 1))
    return same * batch_rows * (batch_rows - 1) / 2


def _epoch(store: Store, batch_rows: int, window_chunks: int) -> np.ndarray:
    """Document of every row of an epoch (of whole batches), in the loader's order."""
    loader = ShuffledLoader(
        store, LoaderOptions(batch_rows, window_chunks=window_chunks, verify=False)
    )
    document = store.column("document")
    return np.concatenate(
        [document[loader.read(batch).rows] for batch in range(store.rows // batch_rows)]
    )


def _print(name: str, store: Store, batch_rows: int) -> None:
    default = default_window_chunks(store)
    title = f"{name}: {store.rows:,} rows, {store.chunks} chunks, batches of {batch_rows:,}"
    table = Table("window", "pairs per batch", "/ uniform", "correlation", title=title)
    stored = store.column("document")
    uniform = uniform_pairs(stored, batch_rows)
    table.add_row("(store order)", *_row(stored, batch_rows, uniform))
    for window in sorted({1, 4, 16, 64, 128, default}):
        order = _epoch(store, batch_rows, window)
        label = f"{window}{' (default)' if window == default else ''}"
        table.add_row(label, *_row(order, batch_rows, uniform))
    table.add_row("uniform", f"{uniform:,.0f}", "1.00", "0")
    Console(width=88).print(table)


def _row(order: np.ndarray, batch_rows: int, uniform: float) -> tuple[str, str, str]:
    pairs = same_document_pairs(order, batch_rows)
    correlation = np.corrcoef(np.arange(len(order)), order)[0, 1]
    return f"{pairs:,.0f}", f"{pairs / uniform:.2f}", f"{correlation:+.4f}"


if __name__ == "__main__":
    typer.run(main)
