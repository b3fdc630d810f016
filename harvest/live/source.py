"""Shuffled batches straight from the models as they read the corpus, for want of a disk.

The corpus is read again when it ends, so batches never do. Documents that are held out, by the
rule of the store, are never drawn: their rows are kept for validation.

For fixed settings the batches are the same in every run on one machine. The buffer is not saved:
a run that is resumed loses the rows that waited in it, and reads on behind them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harvest.background import ahead
from harvest.live.pace import Pace, measure_pace
from harvest.live.refill import ReadBlocks, Refill, ResumePoint
from harvest.live.shuffle import ShuffleBuffer, row_bytes
from pipeline.command import note
from pipeline.errors import ConfigError
from store.buffers import BufferPool
from store.device import DeviceCopy
from store.loader import Batch
from store.schema import Hookpoint
from store.statistics import RowStatistics

DEFAULT_ROWS = 1 << 18
DEFAULT_BYTES = 4 << 30


@dataclass(frozen=True)
class LiveOptions:
    """buffer_rows: at least two batches, None for the default; device: as in LoaderOptions."""

    batch_rows: int
    buffer_rows: int | None = None
    seed: int = 0
    validation_fraction: float = 0.0
    validation_rows: int = 0
    device: torch.device | None = None


def buffer_rows(hookpoints: tuple[Hookpoint, ...], options: LiveOptions) -> int:
    """By default 2^18 rows, or as many as 4 GiB hold if these are fewer; at least two batches."""
    default = min(DEFAULT_ROWS, DEFAULT_BYTES // row_bytes(hookpoints))
    return options.buffer_rows or max(2 * options.batch_rows, default)


def live_bytes(hookpoints: tuple[Hookpoint, ...], options: LiveOptions) -> int:
    """Memory of the buffer and of the held-out rows."""
    return row_bytes(hookpoints) * (buffer_rows(hookpoints, options) + options.validation_rows)


class LiveRows:
    """Iterates over shuffled batches of `read`'s rows; a context, at whose end the harvest stops.

    `origin` says what the rows come from, as JSON values; `on_fill` is told, in the harvest's
    thread, how many rows the first fill of the buffer has so far. Whatever needs rows waits until
    the buffer is full once, and raises the errors of the harvest.
    """

    def __init__(
        self,
        hookpoints: tuple[Hookpoint, ...],
        read: ReadBlocks,
        options: LiveOptions,
        origin: dict[str, Any],
        on_fill: Callable[[int], None] = lambda rows: None,
    ) -> None:
        self.hookpoints = hookpoints
        self.options = options
        self.buffer_rows = buffer_rows(hookpoints, options)
        self.batches_taken = 0
        self._read, self._origin, self._on_fill = read, origin, on_fill
        self._resume_point = ResumePoint()
        self._statistics: dict[str, RowStatistics] = {}
        self._begun: Refill | None = None
        cuda = options.device is not None and options.device.type == "cuda"
        self._copy = DeviceCopy(options.device) if options.device is not None and cuda else None
        self._pools = {
            hookpoint.name: BufferPool((options.batch_rows, hookpoint.width), np.int16, cuda)
            for hookpoint in hookpoints
        }

    @property
    def name(self) -> str:
        """What errors call it."""
        return "the corpus"

    @property
    def memory_bytes(self) -> int:
        """Memory of the buffer and of the held-out rows."""
        return live_bytes(self.hookpoints, self.options)

    @property
    def rows_per_epoch(self) -> None:
        """Not known: the corpus has not been read."""
        return None

    def pace(self) -> Pace:
        """How fast rows come, measured before the first is needed; they are read anew."""
        return measure_pace(self._read)

    def binding(self) -> dict[str, Any]:
        """What the rows depend on, beside the trainer's settings."""
        origin = {f"live_{key}": value for key, value in self._origin.items()}
        return {"live": True, "live_buffer_rows": self.buffer_rows, **origin}

    def provenance(self) -> dict[str, Any]:
        """What a dictionary that was trained on these rows says of them."""
        sizes = {"buffer_rows": self.buffer_rows, "epochs": self._resume_point.epoch + 1}
        return {"live": {**self._origin, **sizes}}

    def statistics(self, hookpoint: str) -> RowStatistics:
        """Statistics of the rows that fill the buffer first; before the iteration."""
        if hookpoint not in self._statistics:
            self._refill().wait_until_full()
            rows = self._refill().buffer.activations[hookpoint]
            self._statistics[hookpoint] = RowStatistics.of(rows)
        return self._statistics[hookpoint]

    def first_batch(self) -> dict[str, Tensor]:
        """The activations of the batch that the iteration begins with; before it."""
        self._refill().wait_until_full()
        return self._refill().buffer.first()

    def sample(self, rows: int) -> Iterator[Batch]:
        """Raises ConfigError: the corpus has not been read, so there is no sample of all of it."""
        raise ConfigError(
            "train.residual: maps between the models are fitted on rows spread over a store, and "
            "--live has none; run `harvest run` first and train on its store, or use recipe dfc"
        )

    def validation(self) -> Iterator[Batch]:
        """The held-out rows that there are so far, in the order of the corpus, on the CPU."""
        if self.options.validation_fraction:
            self._refill().wait_until_full()
        held_out, rows = self._refill().held_out, self._refill().held_out_rows
        for start in range(0, rows, self.options.batch_rows):
            here = slice(start, min(rows, start + self.options.batch_rows))
            activations = {name: x[here] for name, x in held_out.activations.items()}
            yield Batch(activations, held_out.numbers[here])

    def damage(self, first: int, last: int) -> str | None:
        """Nothing: rows that are not finite have been refused as they came."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """From where a resumed run reads on, as of the batch that was taken last."""
        return {"batches_taken": self.batches_taken, **self._resume_point.to_json()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on behind the documents of which rows have been drawn, before the iteration."""
        assert self._begun is None
        self.batches_taken = int(state["batches_taken"])
        self._resume_point = ResumePoint.from_json(state)
        note(
            "a live run cannot go on in mid-buffer: it reads on behind document "
            f"{self._resume_point.position.documents:,} of the corpus; the "
            f"{self._resume_point.waiting:,} rows that waited in the buffer are lost, and held-out "
            "rows are gathered anew"
        )

    def __enter__(self) -> LiveRows:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._begun is not None:
            self._begun.stop()
            self._begun.join()

    def __iter__(self) -> Generator[Batch, None, None]:
        """Yields batches, drawing one ahead; the harvest stops when the iteration is closed."""
        refill = self._refill()
        try:
            for batch, point in ahead(self._draw(refill)):
                self.batches_taken += 1
                self._resume_point = point
                if self._copy is not None:
                    self._copy.hand_over(batch.activations)
                yield batch
                del batch  # or its memory would be taken while the next is waited for
        finally:
            refill.stop()

    def _draw(self, refill: Refill) -> Iterator[tuple[Batch, ResumePoint]]:
        while True:
            tensors = {
                name: torch.from_numpy(pool.take()).view(torch.bfloat16)
                for name, pool in self._pools.items()
            }
            found = refill.draw(tensors)
            if found is None:
                return
            numbers, point = found
            yield Batch(self._copy.send(tensors) if self._copy else tensors, numbers), point

    def _refill(self) -> Refill:
        """The harvest's thread, which begins when the first row is needed."""
        if self._begun is None:
            options = self.options
            buffer = ShuffleBuffer(
                self.hookpoints,
                self.buffer_rows,
                options.batch_rows,
                options.seed,
                self._resume_point.refills,
            )
            self._begun = Refill(
                self._read,
                self.hookpoints,
                buffer,
                self._resume_point,
                options.validation_fraction,
                options.validation_rows,
                self._on_fill,
            )
        return self._begun
