"""How far the arrays of a part reach: rows, documents, bytes of text, bytes of the commit log."""

from __future__ import annotations

import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Extent:
    """A length for each of the four kinds of array."""

    rows: int = sys.maxsize
    documents: int = sys.maxsize
    text_bytes: int = sys.maxsize
    log_bytes: int = sys.maxsize

    def within(self, other: Extent) -> bool:
        """Whether no array reaches further than in `other`."""
        return self == self.meet(other)

    def meet(self, other: Extent) -> Extent:
        """The shorter of the two, for each kind of array."""
        return Extent(
            min(self.rows, other.rows),
            min(self.documents, other.documents),
            min(self.text_bytes, other.text_bytes),
            min(self.log_bytes, other.log_bytes),
        )
