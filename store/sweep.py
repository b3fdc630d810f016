"""Sequential batches over a split, each row once, in storage order: for validation and analysis.

A batch lies within one chunk. When chunks are mapped and a whole run of rows belongs to the split,
it is a view of mapped memory; nothing is copied. While one chunk is used the next is read ahead.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest

import numpy as np
import torch

from store.arena import read_ahead
from store.chunks import check_chunk
from store.loader import Batch
from store.reader import Store
from store.selection import RowSelection, Split


def sweep(
    store: Store,
    batch_rows: int,
    split: Split = "all",
    validation_fraction: float = 0.0,
    limit: int | None = None,
    verify: bool = True,
    chunks: range | None = None,
) -> Iterator[Batch]:
    """Yields batches of at most `batch_rows` rows, of these chunks alone where they are given.

    A `limit` takes the same share of every chunk, so that a corpus in the order of its domains is
    not judged by its first one. With `verify`, a chunk's bytes are compared with its checksums
    when it is first touched through this `store`. Raises StoreError.
    """
    selection = RowSelection(store, split, validation_fraction)
    quotas = selection.chunk_sizes
    if limit is not None and limit < selection.rows:
        seen = np.cumsum(quotas).astype(object)  # the products may exceed 64 bits
        quotas = np.diff(limit * seen // selection.rows, prepend=0).astype(np.int64)
    wanted: list[int] = np.flatnonzero(quotas).tolist()
    if chunks is not None:
        wanted = [chunk for chunk in wanted if chunk in chunks]
    for chunk, following in zip_longest(wanted, wanted[1:]):
        if verify:
            _check_once(store, chunk)
        if following is not None:
            for file, _ in store.chunk_files(following):
                read_ahead(file)
        yield from _batches(store, chunk, selection.in_chunk(chunk)[: quotas[chunk]], batch_rows)


def read_range(store: Store, start: int, stop: int) -> Batch:
    """Rows [start, stop) of the store, across chunks; copies only when they span several."""
    pieces: dict[str, list[torch.Tensor]] = {h.name: [] for h in store.schema.hookpoints}
    for chunk, first, last in store.chunk_spans(start, stop):
        for name, parts in pieces.items():
            parts.append(store.activations(name, chunk, first, last))
    joined = {n: p[0] if len(p) == 1 else torch.cat(p) for n, p in pieces.items()}
    return Batch(joined, np.arange(start, stop))


def _batches(store: Store, chunk: int, picked: np.ndarray, batch_rows: int) -> Iterator[Batch]:
    held = {h.name: store.activations(h.name, chunk) for h in store.schema.hookpoints}
    for start in range(0, len(picked), batch_rows):
        rows = picked[start : start + batch_rows]
        first, last = int(rows[0]), int(rows[-1])
        contiguous = last - first + 1 == len(rows)
        index = torch.from_numpy(rows)
        activations = {
            name: values[first : last + 1] if contiguous else values.index_select(0, index)
            for name, values in held.items()
        }
        yield Batch(activations, rows + int(store.chunk_rows_before[chunk]))


def _check_once(store: Store, chunk: int) -> None:
    if not store.checked[chunk]:
        for file, layout in store.chunk_files(chunk):
            check_chunk(file, layout)
        store.checked[chunk] = True
