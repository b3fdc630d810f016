"""Rows from standard input. They can be read once, and only from the first on."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import cast

from harvest.corpus.files import FileKind
from harvest.corpus.rows import Row, parse_line
from pipeline.specs import SourceSpec


class InputRows:
    """JSON lines, lines of text, or all of the input as one text, behind the first `start` rows.

    Nothing is read before the first `next`, which passes over those. Raises ValueError, OSError.
    """

    name = "standard input"

    def __init__(self, source: SourceSpec, start: int) -> None:
        self.row = 0
        self._start = start
        kind = "jsonl" if source.format == "auto" else source.format
        self._rows = _whole() if kind == "text" else _lines(cast(FileKind, kind))

    def __next__(self) -> Row:
        while self.row < self._start:
            if next(self._rows, None) is None:
                raise ValueError(
                    f"the input ends here, and {self._start} documents of it have been harvested; "
                    "give the same input again"
                )
            self.row += 1
        row = next(self._rows)
        self.row += 1
        return row

    def position(self) -> None:
        """None: no position leads back, what was read has to be given again."""


def _whole() -> Iterator[Row]:
    yield sys.stdin.buffer.read().decode("utf-8")


def _lines(kind: FileKind) -> Iterator[Row]:
    for line in sys.stdin.buffer:
        if line.strip():
            yield parse_line(kind, line)
