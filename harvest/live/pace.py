"""How fast the models give rows, from a block of the corpus that is read twice."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass

from harvest.live.refill import Position, ReadBlocks
from pipeline.errors import CorpusError


@dataclass(frozen=True)
class Pace:
    """Of all rows, held-out ones included."""

    rows_per_second: float
    rows_per_document: float


def measure_pace(read: ReadBlocks) -> Pace:
    """Times the first block that has rows, after a warm-up. Raises CorpusError if none has."""
    _first_rows(read)
    begin = time.perf_counter()
    rows, documents = _first_rows(read)
    return Pace(rows / (time.perf_counter() - begin), rows / documents)


def _first_rows(read: ReadBlocks) -> tuple[int, int]:
    """Rows of the first block that has any, and documents read up to its end."""
    with closing(read(Position(), lambda: None)) as blocks:
        for block, position in blocks:
            if len(block.document):
                return len(block.document), position.documents
    raise CorpusError("corpus: gives no rows to train on; name more text")
