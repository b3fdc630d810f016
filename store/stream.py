"""One store's rows in shuffled order, without end: epoch after epoch, each row once in each.

Positions count rows from the first epoch's start. Any stretch of them can be asked for at once;
the cost of jumping is to open one window.
"""

from __future__ import annotations

import hashlib
import json
import math
from concurrent.futures import Executor
from dataclasses import dataclass
from weakref import WeakValueDictionary

import numpy as np

from pipeline.errors import StoreError
from store.order import EpochOrder, Window, epoch_order
from store.reader import Store
from store.selection import RowSelection, Split
from store.window import FilledChunks, OpenWindow, default_window_chunks

READY_EARLY = 1.1


@dataclass(frozen=True)
class Piece:
    """Rows [first, last) of an open window."""

    window: OpenWindow
    first: int
    last: int


class RowStream:
    """Raises StoreError if the split has no rows. `seed` may be any non-negative integer."""

    def __init__(
        self,
        store: Store,
        split: Split,
        validation_fraction: float,
        seed: int,
        window_chunks: int | None,
        verify: bool,
    ) -> None:
        self.store = store
        self.window_chunks = window_chunks or default_window_chunks(store)
        self._selection = RowSelection(store, split, validation_fraction)
        self._seed = seed
        self._verify = verify
        self._orders: dict[int, EpochOrder] = {}
        self._open: list[OpenWindow] = []
        self._looked_at: list[OpenWindow] = []
        self._filled: WeakValueDictionary[tuple[int, ...], FilledChunks] = WeakValueDictionary()
        if not self.rows_per_epoch:
            raise StoreError(f"{store.path}: no rows in split {split!r}; harvest more text")
        if min(self.window_chunks, store.chunks) * store.schema.chunk_rows >= 2**32:
            raise StoreError(
                f"{store.path}: a window of {self.window_chunks} chunks of "
                f"{store.schema.chunk_rows} rows is too large; lower train.window_chunks"
            )

    @property
    def rows_per_epoch(self) -> int:
        """Rows of the split."""
        return self._selection.rows

    def identity(self) -> dict[str, int | str]:
        """What the order of rows depends on beside the seed."""
        schema = json.dumps(self.store.schema.to_json(), sort_keys=True).encode()
        return {
            "schema": hashlib.blake2b(schema, digest_size=8).hexdigest(),
            "rows_per_epoch": self.rows_per_epoch,
            "window_chunks": self.window_chunks,
        }

    def pieces(self, start: int, stop: int, pool: Executor) -> list[Piece]:
        """The windows that positions [start, stop) lie in, all of them being made ready.

        They are kept until the next such call, apart from those that `advance` goes through.
        """
        found = self._find(start, stop, pool)
        self._looked_at = [piece.window for piece in found]
        return found

    def advance(self, start: int, stop: int, pool: Executor) -> list[Piece]:
        """As `pieces`, for one reading after another: as a window is consumed, the next one is
        made ready in `pool`, and those behind are let go of.
        """
        found = self._find(start, stop, pool)
        last = found[-1]
        following = self._opened(self._window_after(last.window.window))
        consumed = last.last / last.window.window.rows
        # Ready a little before it is needed: the last batches of a window still take a while.
        following.request(pool, math.ceil(len(following.chunks.chunks) * consumed * READY_EARLY))
        self._open, self._looked_at = [last.window, following], []
        return found

    def cancel(self) -> None:
        """Forgets every window, and the chunks that wait to be made ready."""
        for opened in self._open:
            opened.chunks.cancel()
        self._open, self._looked_at = [], []
        self._filled.clear()

    def _find(self, start: int, stop: int, pool: Executor) -> list[Piece]:
        found = []
        while start < stop:
            epoch, offset = divmod(start, self.rows_per_epoch)
            window = self._order(epoch).window_at(offset)
            first = offset - window.start
            last = min(window.rows, first + stop - start)
            opened = self._opened(window)
            opened.request(pool, len(window.chunks))
            found.append(Piece(opened, first, last))
            start += last - first
        return found

    def _opened(self, window: Window) -> OpenWindow:
        for opened in (*self._open, *self._looked_at):
            if opened.window == window:
                return opened
        return OpenWindow(self._chunks(window.chunks), window, self._seed)

    def _chunks(self, chunks: tuple[int, ...]) -> FilledChunks:
        found = self._filled.get(chunks)
        if found is None:
            found = FilledChunks(self.store, self._selection, chunks, self._verify)
            self._filled[chunks] = found
        return found

    def _window_after(self, window: Window) -> Window:
        windows = self._order(window.epoch).windows
        if window.number + 1 < len(windows):
            return windows[window.number + 1]
        return self._order(window.epoch + 1).windows[0]

    def _order(self, epoch: int) -> EpochOrder:
        if epoch not in self._orders:
            self._orders = {e: order for e, order in self._orders.items() if abs(e - epoch) <= 1}
            sizes = self._selection.chunk_sizes
            self._orders[epoch] = epoch_order(sizes, self.window_chunks, self._seed, epoch)
        return self._orders[epoch]


def shares(weights: list[int], start: int, stop: int) -> list[tuple[int, int]]:
    """Each stream's own positions among the mixture's positions [start, stop).

    Integer weights; of the first p positions a stream has p times its share of them, to within
    one, and all streams together have p: so a mixture can be entered anywhere, without a search.
    """
    edges = np.cumsum([0, *weights], dtype=object)
    before, after = ([int(p * edge // edges[-1]) for edge in edges] for p in (start, stop))
    return [(before[n + 1] - before[n], after[n + 1] - after[n]) for n, _ in enumerate(weights)]
