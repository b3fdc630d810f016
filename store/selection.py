"""Which rows belong to training and which are held out: whole documents, by their hash."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Int64

from store.reader import Store

Split = Literal["train", "validation", "all"]


class RowSelection:
    """Rows of a split, chunk by chunk. Opening reads a few bytes per document and none per row."""

    def __init__(self, store: Store, split: Split, validation_fraction: float) -> None:
        self._store = store
        held_out = store.documents.validation_mask(validation_fraction)
        masks = {"train": ~held_out, "validation": held_out, "all": np.ones_like(held_out)}
        self._documents = masks[split]
        self.chunk_sizes = self._count()

    @property
    def rows(self) -> int:
        """Rows of the split."""
        return int(self.chunk_sizes.sum())

    def in_chunk(self, chunk: int) -> Int64[np.ndarray, " picked"]:
        """Positions inside the chunk of the split's rows, ascending."""
        return np.flatnonzero(self._documents[self._store.document_chunk(chunk)])

    def _count(self) -> Int64[np.ndarray, " chunks"]:
        """Rows of the split in each chunk."""
        sizes = []
        for part, row_ends in enumerate(self._store.documents.row_ends):
            first = self._store.documents.first_of_part(part)
            kept = self._documents[first : first + len(row_ends)]
            rows = int(row_ends[-1]) if len(row_ends) else 0
            edges = np.append(np.arange(0, rows, self._store.schema.chunk_rows), rows)
            sizes.append(np.diff(_kept_before(edges, row_ends, kept)))
        return np.concatenate([np.zeros(0, np.int64), *sizes])


def _kept_before(edges: np.ndarray, row_ends: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """How many rows of kept documents lie before each of the row numbers `edges`."""
    starts = np.concatenate([[0], row_ends])
    before = np.concatenate([[0], np.cumsum(np.diff(starts) * kept)])
    document = np.searchsorted(row_ends, edges, side="right")
    inside = (edges - starts[document]) * np.append(kept, False)[document]
    return before[document] + inside
