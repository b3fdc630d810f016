"""A shuffle buffer of fixed memory: rows go in as they come and leave in random order, each once.

All slots are filled; then half of them are drawn in a random order without replacement, while new
rows take the places that become free; when as many have come as were drawn, everything is shuffled
anew. So a batch mixes rows of a whole buffer of text, and a row may stay for several rounds. The
order depends on the rows, the seed and the sizes alone, not on when rows come. Memory: for every
row, 2 bytes x width per hookpoint and 16 bytes; nothing grows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import BFloat16
from torch import Tensor

from store.order import Window, window_permutation
from store.schema import Hookpoint

ROW_BYTES = 16  # a row's number, and its slot in the order


class RowMemory:
    """Memory for rows of all hookpoints and their numbers (rows,), touched as it is written."""

    def __init__(self, hookpoints: Sequence[Hookpoint], rows: int) -> None:
        self.activations = {
            hookpoint.name: torch.empty((rows, hookpoint.width), dtype=torch.bfloat16)
            for hookpoint in hookpoints
        }
        self.numbers = np.empty(rows, np.int64)


def row_bytes(hookpoints: Sequence[Hookpoint]) -> int:
    """Memory of one row in a buffer."""
    return ROW_BYTES + 2 * sum(hookpoint.width for hookpoint in hookpoints)


def rows_put(rows: int, batch_rows: int, batches: int) -> int:
    """Rows that a buffer of `rows` must be given before so many batches can be drawn."""
    rounds = -(-batches // _round_batches(rows, batch_rows))
    return rows + (rounds - 1) * _round_batches(rows, batch_rows) * batch_rows


class ShuffleBuffer:
    """Holds `rows` rows, at least two batches; `seed` may be any non-negative integer.

    `refills` counts the rounds so far; a later run that begins behind an earlier one's shuffles
    otherwise than that one did.
    """

    def __init__(
        self, hookpoints: Sequence[Hookpoint], rows: int, batch_rows: int, seed: int, refills: int
    ) -> None:
        assert rows >= 2 * batch_rows
        self.rows = rows
        self.refills = refills
        self.shuffled = False
        self._batch_rows = batch_rows
        self._seed = seed
        self._memory = RowMemory(hookpoints, rows)
        # Slots in the order in which they are drawn; the first fill is a round with all drawn.
        self._order = np.arange(rows)
        self._to_draw = self._drawn = rows
        self._filled = 0

    @property
    def room(self) -> int:
        """Rows that can be put in now."""
        return self._drawn - self._filled

    @property
    def waiting(self) -> int:
        """Rows of this round that have not been drawn."""
        return self.rows - self._drawn if self.shuffled else self._filled

    @property
    def ready(self) -> bool:
        """Whether a batch can be drawn now."""
        return self._drawn < self._to_draw

    @property
    def activations(self) -> dict[str, BFloat16[Tensor, "rows _width"]]:
        """Every slot of every hookpoint: all of them hold rows when it has just been shuffled."""
        return {name: slots[: self.rows] for name, slots in self._memory.activations.items()}

    def put(self, activations: Mapping[str, Tensor], numbers: np.ndarray) -> None:
        """Takes rows in, at most as many as there is room for."""
        assert len(numbers) <= self.room
        slots = self._order[self._filled : self._filled + len(numbers)]
        index = torch.from_numpy(slots)
        for name, held in self._memory.activations.items():
            held.index_copy_(0, index, activations[name])
        self._memory.numbers[slots] = numbers
        self._filled += len(slots)
        if self._filled == self._to_draw:
            self._shuffle()

    def first(self) -> dict[str, Tensor]:
        """The activations of the batch that is drawn next, left where they are; copies."""
        index = torch.from_numpy(self._order[self._drawn : self._drawn + self._batch_rows])
        return {name: held[index] for name, held in self._memory.activations.items()}

    def draw(self, outs: Mapping[str, Tensor]) -> np.ndarray:
        """Writes a batch to `outs`, (batch, width) per hookpoint; returns its rows' numbers."""
        assert self.ready
        slots = self._order[self._drawn : self._drawn + self._batch_rows]
        index = torch.from_numpy(slots)
        for name, out in outs.items():
            torch.index_select(self._memory.activations[name], 0, index, out=out)
        numbers = self._memory.numbers[slots]
        self._drawn += self._batch_rows
        return numbers

    def make_do(self) -> None:
        """Shrinks to the rows that the first fill has brought, if they are two batches or more.

        For a corpus that is smaller than the buffer: it would hold its rows several times.
        """
        if not self.shuffled and self._filled >= 2 * self._batch_rows:
            self.rows = self._filled
            self._shuffle()

    def _shuffle(self) -> None:
        round_ = Window(epoch=0, number=self.refills, chunks=(), start=0, rows=self.rows)
        self._order = window_permutation(self._seed, round_).astype(np.int64)
        self._to_draw = _round_batches(self.rows, self._batch_rows) * self._batch_rows
        self._drawn = self._filled = 0
        self.shuffled = True
        self.refills += 1


def _round_batches(rows: int, batch_rows: int) -> int:
    """Batches that are drawn between two shuffles."""
    return rows // 2 // batch_rows
