"""Brings accumulators to where they have seen every row: from disk, or by one pass over the store.

Cost: the dictionary's forward pass per row plus what the accumulators add; every row is seen, once,
in inference mode. What is not on disk yet is read in one pass for all, saved every minute, and gone
on with after an interruption; several processes may share the store (`Share`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from analyze.subject import Subject
from analyze.sweep.accumulator import Accumulator
from analyze.sweep.saved import Share, key_of, load, load_merged, save
from analyze.sweep.seen import look
from store.sweep import sweep

SAVE_EVERY = 60.0
DONE = -1  # next chunk of a share that has been read to its end

OnRows = Callable[[int], None]


def gather(
    subject: Subject,
    accumulators: Sequence[Accumulator],
    batch_rows: int,
    folder: Path | None = None,
    on_rows: OnRows = lambda rows: None,
    share: Share = Share(),  # noqa: B008 - frozen
) -> None:
    """Fills fresh accumulators with all rows of the share.

    folder: where they are kept; None: nowhere. on_rows is told of every row, read or known.
    """
    chunks = share.chunks(subject.store.chunks)
    nexts = [_restored(subject, one, folder, share, chunks) for one in accumulators]
    pending = [n for n, following in enumerate(nexts) if following != DONE]
    first = min((nexts[n] for n in pending), default=chunks.stop)
    on_rows(int(subject.store.chunk_sizes[chunks.start : first].sum()))
    if not pending:
        return
    keep = _Keeper(subject, [accumulators[n] for n in pending], folder, share)
    current = first
    for batch in sweep(subject.store, batch_rows, chunks=range(first, chunks.stop)):
        chunk = subject.store.chunk_of(int(batch.rows[0]))
        if chunk != current:
            keep.now_and_then([max(nexts[n], chunk) for n in pending])
            current = chunk
        seen = look(subject, batch, chunk)
        for n in pending:
            if nexts[n] <= chunk:
                accumulators[n].update(seen)
        on_rows(len(batch.rows))
    keep.all([DONE] * len(pending))


def _restored(
    subject: Subject, accumulator: Accumulator, folder: Path | None, share: Share, chunks: range
) -> int:
    """Fills an accumulator with what is on disk; the chunk that follows, or DONE."""
    if folder is None:
        return chunks.start
    key = key_of(subject.fingerprint, accumulator, share)
    found = load(share.file(folder, accumulator.name), key)
    if found is not None:
        accumulator.absorb(found.state)
        return found.next_chunk
    if share.of == 1 and load_merged(folder, subject.fingerprint, accumulator):
        save(share.file(folder, accumulator.name), key, accumulator, DONE)
        return DONE
    return chunks.start


class _Keeper:
    """Saves accumulators once a minute, and at the end."""

    def __init__(
        self,
        subject: Subject,
        accumulators: list[Accumulator],
        folder: Path | None,
        share: Share,
    ) -> None:
        self._subject, self._accumulators = subject, accumulators
        self._folder, self._share = folder, share
        self._saved = time.monotonic()

    def now_and_then(self, nexts: list[int]) -> None:
        if time.monotonic() - self._saved > SAVE_EVERY:
            self.all(nexts)

    def all(self, nexts: list[int]) -> None:
        if self._folder is None:
            return
        for accumulator, following in zip(self._accumulators, nexts, strict=True):
            key = key_of(self._subject.fingerprint, accumulator, self._share)
            save(self._share.file(self._folder, accumulator.name), key, accumulator, following)
        self._saved = time.monotonic()
