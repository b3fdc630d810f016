"""Keeps a shuffle buffer full: a thread that reads the corpus with the models, again and again.

It runs ahead until the buffer has no room. Rows of held-out documents go into a memory of their
own, in the first reading of the corpus and until that is full; after that they are left out.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harvest.live.shuffle import RowMemory, ShuffleBuffer
from pipeline.command import note
from pipeline.errors import CorpusError, DictionaryError
from store.block import Block, document_hash, encode_text
from store.schema import Hookpoint


@dataclass(frozen=True)
class Position:
    """Where the reading of the corpus stands: documents done with, and the reader's own state."""

    documents: int = 0
    reader: dict[str, Any] | None = None


# Reads on from a position: blocks, each with the position behind it. The function that it is given
# is to be called before every forward pass; it raises when the reading is to end.
ReadBlocks = Callable[[Position, Callable[[], None]], Generator[tuple[Block, Position], None, None]]


@dataclass(frozen=True)
class ResumePoint:
    """From where a later run reads on: none of what is drawn by then lies behind it.

    epoch: times that the corpus was read to its end; waiting: rows of the buffer not drawn yet.
    """

    epoch: int = 0
    position: Position = Position()
    refills: int = 0
    waiting: int = 0

    def to_json(self) -> dict[str, Any]:
        """JSON values from which `from_json` rebuilds it."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ResumePoint:
        """Inverse of `to_json`. Raises DictionaryError for what cannot be a checkpoint's."""
        try:
            position = Position(**value["position"])
            numbers = [int(value[key]) for key in ("epoch", "refills", "waiting")]
        except (KeyError, TypeError, ValueError) as error:
            raise DictionaryError(
                f"the checkpoint does not say where the corpus was read to ({error!r}); "
                "delete it to go back to an older one"
            ) from None
        return cls(numbers[0], position, *numbers[1:])


class _StoppedError(Exception):
    """Ends the thread."""


class Refill:
    """Fills `buffer` from `begun` on; of held-out rows at most `validation_rows` are kept.

    `on_fill` is told, in the thread, how many rows the first fill has. Errors of the harvest are
    raised to whoever waits for rows; CorpusError if a whole reading gives none to train on.
    """

    def __init__(
        self,
        read: ReadBlocks,
        hookpoints: Sequence[Hookpoint],
        buffer: ShuffleBuffer,
        begun: ResumePoint,
        validation_fraction: float,
        validation_rows: int,
        on_fill: Callable[[int], None],
    ) -> None:
        self.buffer = buffer
        self.held_out = RowMemory(hookpoints, validation_rows)
        self.held_out_rows = 0
        self._validation_rows = validation_rows
        self._held_out_below = int(validation_fraction * 2**64)  # as Documents.validation_mask
        self._read, self._on_fill = read, on_fill
        self._epoch, self._position = begun.epoch, begun.position
        self._first_epoch, self._resume_point = begun.epoch, begun
        self._numbered = 0
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="harvest")
        self._thread.start()

    def wait_until_full(self) -> None:
        """Waits for the end of the first fill."""
        full = self._wait(lambda: self.buffer.shuffled)
        assert full, "stopped in the first fill"

    def draw(self, outs: Mapping[str, Tensor]) -> tuple[np.ndarray, ResumePoint] | None:
        """Draws a batch, with where a run that ends behind it is resumed; None when stopped."""
        if not self._wait(lambda: self.buffer.ready):
            return None
        with self._changed:
            numbers = self.buffer.draw(outs)
            self._changed.notify_all()
            return numbers, replace(self._resume_point, waiting=self.buffer.waiting)

    def stop(self) -> None:
        """Ends the thread at the next forward pass, and all waiting."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def join(self) -> None:
        """Waits for the thread, which has been stopped."""
        self._thread.join()

    def _wait(self, reached: Callable[[], bool]) -> bool:
        """Whether it was reached; if not, all was stopped. Raises the thread's error."""
        with self._changed:
            self._changed.wait_for(lambda: reached() or self._stopped or self._error is not None)
            if self._error is not None and not reached():
                raise self._error
            return reached()

    def _run(self) -> None:
        try:
            while True:
                self._read_corpus()
        except _StoppedError:
            pass
        except BaseException as error:
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _read_corpus(self) -> None:
        """Reads on to the end of the corpus, and stands at its start again."""
        whole = self._position == Position()
        before = self._numbered
        with closing(self._read(self._position, self._raise_if_stopped)) as blocks:
            for block, position in blocks:
                self._position = position
                self._take(block)
        self._epoch, self._position = self._epoch + 1, Position()
        if whole and self._numbered == before:
            raise CorpusError("corpus: gives no rows to train on; name more text")
        with self._changed:
            self._shuffling(self.buffer.make_do)
        if self._epoch == self._first_epoch + 1:
            note(
                f"read the corpus to its end, {self._numbered:,} rows of training "
                "documents; reading it again"
            )

    def _raise_if_stopped(self) -> None:
        if self._stopped:
            raise _StoppedError

    def _take(self, block: Block) -> None:
        hashes = (document_hash(encode_text(text)) for text in block.texts)
        held_out = np.array([value < self._held_out_below for value in hashes], bool)
        is_held_out = held_out[block.document]
        self._keep(block, np.flatnonzero(is_held_out))
        self._put(block, np.flatnonzero(~is_held_out))

    def _keep(self, block: Block, rows: np.ndarray) -> None:
        """Adds held-out rows to those that are kept, while there is room in the first reading."""
        if self._epoch > self._first_epoch:
            return
        rows = rows[: self._validation_rows - self.held_out_rows]
        index = torch.from_numpy(rows)
        here = slice(self.held_out_rows, self.held_out_rows + len(rows))
        for name, held in self.held_out.activations.items():
            held[here] = block.activations[name][index]
        self.held_out.numbers[here] = np.arange(here.start, here.stop)
        with self._changed:
            self.held_out_rows = here.stop

    def _put(self, block: Block, rows: np.ndarray) -> None:
        """Puts rows into the buffer as there is room."""
        while len(rows):
            with self._changed:
                self._changed.wait_for(lambda: self.buffer.room or self._stopped)
                self._raise_if_stopped()
                now, rows = np.split(rows, [self.buffer.room])
                index = torch.from_numpy(now)
                activations = {name: x[index] for name, x in block.activations.items()}
                numbers = self._numbered + np.arange(len(now))
                self._numbered += len(now)
                self._shuffling(partial(self.buffer.put, activations, numbers))
            if not self.buffer.shuffled:
                self._on_fill(self.buffer.waiting)

    def _shuffling(self, change: Callable[[], None]) -> None:
        """Changes the buffer, under the lock. If that began a round, here a later run resumes."""
        refills = self.buffer.refills
        change()
        if self.buffer.refills > refills:
            self._resume_point = ResumePoint(self._epoch, self._position, self.buffer.refills)
            self._changed.notify_all()
