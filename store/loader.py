"""Shuffled batches from a store, forever: deterministic, seekable, in bounded memory.

The sequence of global batches depends on (store, split, seed, batch size, window) alone, not on
threads, readers or ranks. Every row of the split comes exactly once per epoch; a batch may reach
over the end of an epoch into the next, so all batches have the same size. Inside a batch, rows
are in storage order: their order carries no meaning, and gathers then walk memory forwards.

State is one integer (the number of batches taken) and seeking is O(1). Memory: mapped pages of
at most the windows being read, plus `prefetch` batch buffers. Cost per batch: one gather per
hookpoint and chunk of the window, in threads, ahead of the consumer.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from threading import Lock

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import StoreError
from store.order import epoch_order, window_permutation
from store.reader import Store
from store.selection import RowSelection, Split


@dataclass(frozen=True)
class Batch:
    """activations: hookpoint name -> bfloat16 (batch, width); rows: store row numbers (batch,)."""

    activations: dict[str, Tensor]
    rows: np.ndarray


@dataclass(frozen=True)
class LoaderOptions:
    """What the order depends on (batch_rows, seed, window_chunks, split) and what it does not."""

    batch_rows: int
    seed: int = 0
    window_chunks: int = 32
    split: Split = "train"
    validation_fraction: float = 0.0
    threads: int = 2
    prefetch: int = 4
    pin_memory: bool = False


class ShuffledLoader:
    """Iterates over shuffled batches. Raises StoreError if the split has no rows."""

    def __init__(self, store: Store, options: LoaderOptions) -> None:
        self.store = store
        self.options = options
        self.batches_taken = 0
        self._selection = RowSelection(
            store,
            options.split,
            options.validation_fraction,
            cached_chunks=2 * options.window_chunks,
        )
        if not self._selection.rows:
            raise StoreError(f"{store.path}: no rows in split {options.split!r}; harvest more text")
        self._maps = _ChunkMaps(store, capacity=2 * options.window_chunks)

    @property
    def rows_per_epoch(self) -> int:
        """Rows of the split."""
        return self._selection.rows

    def state_dict(self) -> dict[str, int]:
        """Where the loader stands; `batches_taken` counts batches handed out."""
        return {
            "batches_taken": self.batches_taken,
            "rows_per_epoch": self.rows_per_epoch,
            "batch_rows": self.options.batch_rows,
            "window_chunks": self.options.window_chunks,
            "seed": self.options.seed,
        }

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Seeks. Raises StoreError if the state belongs to another order of rows."""
        for key, mine in self.state_dict().items():
            if key != "batches_taken" and state.get(key) != mine:
                raise StoreError(
                    f"{self.store.path}: loader state has {key} {state.get(key)}, now {mine}: "
                    "not the same order of rows; restore the setting or train anew"
                )
        self.batches_taken = int(state["batches_taken"])

    def __iter__(self) -> Generator[Batch, None, None]:
        """Yields batches from where the loader stands, reading ahead in threads."""
        pool = ThreadPoolExecutor(self.options.threads, thread_name_prefix="loader")
        ahead: deque[Future[Batch]] = deque()
        submitted = self.batches_taken
        try:
            while True:
                while len(ahead) < max(1, self.options.prefetch):
                    ahead.append(pool.submit(self._gather, *self.locate(submitted)))
                    submitted += 1
                batch = ahead.popleft().result()
                self.batches_taken += 1
                yield batch
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def read(self, batch: int) -> Batch:
        """One batch by its number, without moving the loader."""
        return self._gather(*self.locate(batch))

    def locate(self, batch: int) -> tuple[np.ndarray, np.ndarray]:
        """Chunk and row within the chunk of every row of a batch, in storage order."""
        pieces = []
        position = batch * self.options.batch_rows
        end = position + self.options.batch_rows
        while position < end:
            chunks, rows = self._locate_in_window(position, end)
            pieces.append((chunks, rows))
            position += len(chunks)
        chunks = np.concatenate([piece[0] for piece in pieces])
        rows = np.concatenate([piece[1] for piece in pieces])
        order = np.lexsort((rows, chunks))
        return chunks[order], rows[order]

    def _locate_in_window(self, position: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        """As `locate`, for as much of [position, end) as the window at `position` holds."""
        options, selection = self.options, self._selection
        epoch, offset = divmod(position, self.rows_per_epoch)
        order = epoch_order(selection.chunk_sizes, options.window_chunks, options.seed, epoch)
        window = order.window_at(offset)
        permutation = window_permutation(window.rows, options.seed, epoch, window.number)
        first = offset - window.start
        picked = np.sort(permutation[first : first + end - position])
        starts = np.cumsum([0, *(selection.chunk_sizes[chunk] for chunk in window.chunks)])
        edges = np.searchsorted(picked, starts)
        rows = [
            selection.in_chunk(chunk)[picked[left:right] - start]
            for chunk, start, (left, right) in zip(
                window.chunks, starts[:-1], pairwise(edges), strict=True
            )
        ]
        return np.repeat(np.array(window.chunks), np.diff(edges)), np.concatenate(rows)

    def _gather(self, chunks: np.ndarray, rows: np.ndarray) -> Batch:
        """Copies the located rows out of mapped chunks into fresh (pinned) buffers."""
        activations = {
            hookpoint.name: torch.empty(
                len(rows),
                hookpoint.width,
                dtype=torch.bfloat16,
                pin_memory=self.options.pin_memory,
            )
            for hookpoint in self.store.schema.hookpoints
        }
        outputs = {name: _bits(out) for name, out in activations.items()}
        edges = [0, *(np.flatnonzero(np.diff(chunks)) + 1), len(chunks)]
        for start, stop in pairwise(edges):
            for name, out in outputs.items():
                source = self._maps.get(name, int(chunks[start]))
                # numpy, as torch's threads and ours would fight; "clip" writes without a copy.
                np.take(source, rows[start:stop], axis=0, out=out[start:stop], mode="clip")
        return Batch(activations, rows + self.store.chunk_rows_before[chunks])


class _ChunkMaps:
    """The most recently used mapped chunks, so that each is opened once per window."""

    def __init__(self, store: Store, capacity: int) -> None:
        self._store = store
        self._capacity = capacity * len(store.schema.hookpoints)
        self._maps: OrderedDict[tuple[str, int], np.ndarray] = OrderedDict()
        self._lock = Lock()

    def get(self, name: str, chunk: int) -> np.ndarray:
        """The bits of the mapped chunk; opening twice at once is harmless."""
        key = (name, chunk)
        with self._lock:
            if key in self._maps:
                self._maps.move_to_end(key)
                return self._maps[key]
        mapped = _bits(self._store.activations(name, chunk))
        with self._lock:
            self._maps[key] = mapped
            while len(self._maps) > self._capacity:
                self._maps.popitem(last=False)
        return mapped


def _bits(values: Tensor) -> np.ndarray:
    """The same memory as int16, which numpy copies without holding the interpreter lock."""
    return values.view(torch.int16).numpy()
