"""A window of the shuffled order, open for gathering: its chunks in arenas, its rows permuted.

Chunks are made ready in worker threads, a few at a time, while the window before is consumed. The
first time that a chunk is touched its bytes are compared with its checksums (`Store.checked`).
Windows of the same chunks, as those of a small store are in every epoch, share them.
"""

from __future__ import annotations

from concurrent.futures import Executor, Future

import numpy as np
from jaxtyping import Int64, UInt32

from pipeline.errors import StoreError
from store.arena import Arena
from store.chunks import PAGE, check_chunk
from store.gather import gather
from store.order import Window, window_permutation
from store.reader import Store
from store.selection import RowSelection

DEFAULT_CHUNKS = 256
DECODED_BYTES = 4 << 30


def default_window_chunks(store: Store) -> int:
    """Chunks mixed at a time where the user names none: a function of the store's schema.

    As many as a store needs to be shuffled uniformly when it has up to 256 chunks; mapped chunks
    cost only page cache. Chunks that are decoded live in RAM: then at most 4 GiB of them.
    """
    layouts = [store.activation_layout(hookpoint.name) for hookpoint in store.schema.hookpoints]
    decoded = sum(x.chunk_bytes for x in layouts if not x.mapped or x.chunk_bytes % PAGE)
    return DEFAULT_CHUNKS if not decoded else max(1, min(DEFAULT_CHUNKS, DECODED_BYTES // decoded))


def window_bytes(store: Store, window_chunks: int | None) -> int:
    """Memory of the windows that are open at a time: the one read and the one made ready."""
    chunks = window_chunks or default_window_chunks(store)
    layouts = [store.activation_layout(hookpoint.name) for hookpoint in store.schema.hookpoints]
    return min(2 * chunks, store.chunks) * sum(layout.chunk_bytes for layout in layouts)


class FilledChunks:
    """Some chunks side by side, with which of their rows belong to the split. Raises StoreError.

    With `verify`, checksums are compared when a chunk is first touched.
    """

    def __init__(
        self, store: Store, selection: RowSelection, chunks: tuple[int, ...], verify: bool
    ) -> None:
        self.chunks = chunks
        self._store = store
        self._selection = selection
        self._verify = verify
        self._layouts = {h.name: store.activation_layout(h.name) for h in store.schema.hookpoints}
        self._arenas = {name: Arena(layout, len(chunks)) for name, layout in self._layouts.items()}
        self._slots: list[Future[UInt32[np.ndarray, " picked"]]] = []
        self._first_rows = store.chunk_rows_before[list(chunks)]

    def request(self, pool: Executor, count: int) -> None:
        """Sees to it that at least the first `count` chunks are made ready."""
        for slot in range(len(self._slots), min(count, len(self.chunks))):
            self._slots.append(pool.submit(self._fill, slot))

    def cancel(self) -> None:
        """Drops what has not been begun."""
        for slot in self._slots:
            slot.cancel()

    def places(self) -> UInt32[np.ndarray, " rows"]:
        """Where the rows of the split lie; waits until every chunk is ready."""
        assert len(self._slots) == len(self.chunks), "request every chunk first"
        return np.concatenate([slot.result() for slot in self._slots])

    def gather(
        self,
        places: UInt32[np.ndarray, " rows"],
        outs: dict[str, np.ndarray],
        scales: dict[str, float],
    ) -> Int64[np.ndarray, " rows"]:
        """Writes the rows at `places` to `outs`; returns their numbers in the store."""
        for name, out in outs.items():
            gather(self._arenas[name].rows, self._layouts[name], places, out, scales.get(name))
        slots, rows = np.divmod(places, np.uint32(self._store.schema.chunk_rows))
        return self._first_rows[slots] + rows

    def _fill(self, slot: int) -> UInt32[np.ndarray, " picked"]:
        """Makes a chunk ready; returns the places of its rows of the split."""
        store, chunk = self._store, self.chunks[slot]
        check = self._verify and not store.checked[chunk]
        for name, arena in self._arenas.items():
            arena.fill(slot, store.activation_file(name, chunk)[0], check)
        if check:
            check_chunk(store.column_file("document", chunk), store.column_layout)
            store.checked[chunk] = True
        picked = self._selection.in_chunk(chunk)
        if len(picked) != self._selection.chunk_sizes[chunk]:
            raise StoreError(
                f"{store.path}: chunk {chunk} has {len(picked)} rows of the split where its "
                f"documents have {self._selection.chunk_sizes[chunk]}; run `store verify`"
            )
        return (slot * store.schema.chunk_rows + picked).astype(np.uint32)


class OpenWindow:
    """The rows of `window` in their shuffled order, over its chunks."""

    def __init__(self, chunks: FilledChunks, window: Window, seed: int) -> None:
        self.chunks = chunks
        self.window = window
        self._seed = seed
        self._order: Future[UInt32[np.ndarray, " rows"]] | None = None

    def request(self, pool: Executor, count: int) -> None:
        """Sees to it that the first `count` chunks are made ready and, after the last, the order.

        The order is behind the chunks in the pool's queue, so it never waits for what waits for it.
        """
        self.chunks.request(pool, count)
        if count >= len(self.chunks.chunks) and self._order is None:
            self._order = pool.submit(self._permuted)

    def gather(
        self, first: int, last: int, outs: dict[str, np.ndarray], scales: dict[str, float]
    ) -> Int64[np.ndarray, " rows"]:
        """Writes the window's rows [first, last) to `outs`; returns their numbers in the store."""
        assert self._order is not None, "request every chunk first"
        return self.chunks.gather(self._order.result()[first:last], outs, scales)

    def _permuted(self) -> UInt32[np.ndarray, " rows"]:
        return self.chunks.places()[window_permutation(self._seed, self.window)]
