"""The order in which rows are seen: pure functions of (chunk sizes, seed, epoch).

A seeded permutation of chunks is read through windows of consecutive chunks, inside which rows
are permuted. Disk reads stay sequential within chunks, memory is bounded by the window, and a
batch mixes rows of up to `window_chunks` chunks. Trade-off: rows of different windows never meet
in a batch, so with w windows two rows of one document meet about w times as often as under a
uniform shuffle, while one window is a uniform shuffle (benchmarks/shuffle.py measures both).

Random numbers are the raw words of Philox, a stream that numpy keeps unchanged for good (NEP 19),
and a permutation is the order that sorts them: so an order outlives numpy's versions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, UInt32

CHUNK_STREAM, ROW_STREAM = 0, 1


@dataclass(frozen=True)
class Window:
    """Some chunks, ascending, whose rows are mixed; `start` is its first row's epoch position."""

    epoch: int
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


def epoch_order(
    chunk_sizes: Int[np.ndarray, " chunks"], window_chunks: int, seed: int, epoch: int
) -> EpochOrder:
    """Windows of one epoch over chunks with these many rows; empty chunks are left out.

    Windows hold `window_chunks` chunks or a little fewer, all about the same number, so that none
    mixes only a leftover.
    """
    shuffled = _permutation(len(chunk_sizes), seed, epoch, CHUNK_STREAM)
    chunks = shuffled[np.asarray(chunk_sizes)[shuffled] > 0]
    groups = np.array_split(chunks, max(1, -(-len(chunks) // window_chunks)))
    rows = [int(chunk_sizes[members].sum()) for members in groups]
    starts = np.cumsum([0, *rows])[:-1]
    windows = tuple(
        Window(epoch, number, tuple(sorted(members.tolist())), int(start), size)
        for number, (members, start, size) in enumerate(zip(groups, starts, rows, strict=True))
    )
    return EpochOrder(windows, starts)


def window_permutation(seed: int, window: Window) -> UInt32[np.ndarray, " rows"]:
    """Order of the rows inside one window; 4 B and below 0.1 us a row, outside Python's lock."""
    return _permutation(window.rows, seed, window.epoch, ROW_STREAM, window.number)


def _permutation(size: int, *key: int) -> UInt32[np.ndarray, " size"]:
    """A permutation for every key of non-negative integers."""
    words = np.random.Philox(np.random.SeedSequence(key)).random_raw(size)
    # A word's low bits become its place: sorting then carries the places along, with no ties.
    place = np.uint64((1 << size.bit_length()) - 1)
    words &= ~place
    words |= np.arange(size, dtype=np.uint64)
    words.sort()
    return (words & place).astype(np.uint32)
