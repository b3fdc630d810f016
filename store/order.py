"""The order in which rows are seen: pure functions of (chunk sizes, seed, epoch).

A seeded permutation of chunks is read through windows of consecutive chunks, inside which rows
are permuted. Disk reads stay sequential within chunks, memory is bounded by the window, and a
batch mixes rows of up to `window_chunks` chunks. Trade-off: rows further apart than a window
never meet in one batch; more chunks per window mix better and hold more memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

CHUNK_STREAM, ROW_STREAM = 0, 1


@dataclass(frozen=True)
class Window:
    """Some chunks whose rows are mixed; `start` is the epoch position of its first row."""

    number: int
    chunks: tuple[int, ...]
    start: int
    rows: int


@dataclass(frozen=True)
class EpochOrder:
    """The windows of one epoch; `starts` are their first positions (windows,)."""

    windows: tuple[Window, ...]
    starts: np.ndarray

    def window_at(self, position: int) -> Window:
        """The window that holds an epoch position."""
        return self.windows[int(np.searchsorted(self.starts, position, side="right")) - 1]


@lru_cache(maxsize=4)
def epoch_order(
    chunk_sizes: tuple[int, ...], window_chunks: int, seed: int, epoch: int
) -> EpochOrder:
    """Windows of one epoch over chunks with these many rows; empty chunks are left out."""
    generator = np.random.default_rng([seed, epoch, CHUNK_STREAM])
    chunks = [int(c) for c in generator.permutation(len(chunk_sizes)) if chunk_sizes[c]]
    windows = []
    position = 0
    for number, first in enumerate(range(0, len(chunks), window_chunks)):
        members = tuple(chunks[first : first + window_chunks])
        rows = sum(chunk_sizes[chunk] for chunk in members)
        windows.append(Window(number, members, position, rows))
        position += rows
    return EpochOrder(tuple(windows), np.array([window.start for window in windows]))


@lru_cache(maxsize=4)
def window_permutation(rows: int, seed: int, epoch: int, window: int) -> np.ndarray:
    """Order of the rows inside one window, int64 (rows,)."""
    return np.random.default_rng([seed, epoch, ROW_STREAM, window]).permutation(rows)
