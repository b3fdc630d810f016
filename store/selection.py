"""Which rows belong to training and which are held out: whole documents, by their hash."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np

from store.reader import Store

Split = Literal["train", "validation", "all"]


class RowSelection:
    """Rows of a split, chunk by chunk. Opening reads the `document` column once (4 B a row).

    The positions of the last `cached_chunks` chunks that were asked for are kept: 8 B a row.
    """

    def __init__(
        self, store: Store, split: Split, validation_fraction: float, cached_chunks: int = 1
    ) -> None:
        self._store = store
        held_out = store.documents.validation_mask(validation_fraction)
        masks = {"train": ~held_out, "validation": held_out, "all": np.ones_like(held_out)}
        self._documents = masks[split]
        self.chunk_sizes = tuple(len(self._select(chunk)) for chunk in range(store.chunks))
        self.in_chunk = lru_cache(maxsize=cached_chunks)(self._select)

    @property
    def rows(self) -> int:
        """Rows of the split."""
        return sum(self.chunk_sizes)

    def _select(self, chunk: int) -> np.ndarray:
        """Positions inside the chunk of the split's rows, int64, ascending."""
        return np.flatnonzero(self._documents[self._store.document_chunk(chunk)])
