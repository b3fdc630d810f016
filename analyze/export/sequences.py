"""Rows of a store as sequences of one model's tokens, all of one length.

Rows are laid out in the order of the store, those of a document in order, documents one behind the
other with a separator between them if one is given, and cut every `ctx_len` positions. Only rows
are there: a token of the model at whose end no token of the others ended has no row, and is missing
from the sequence. What is left at the end, less than a sequence, is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int32, Int64

from pipeline.errors import StoreError
from store.reader import Store


@dataclass(frozen=True)
class Placed:
    """Successive tokens, separators among them, and which position each row has in the whole."""

    tokens: Int32[np.ndarray, " positions"]
    of_rows: Int64[np.ndarray, " rows"]


@dataclass(frozen=True)
class Sequences:
    """How many sequences of how many tokens the rows of a store make."""

    count: int
    ctx_len: int
    left_out: int

    @property
    def positions(self) -> int:
        """Positions in whole sequences."""
        return self.count * self.ctx_len


def plan_sequences(store: Store, ctx_len: int, separator: int | None) -> Sequences:
    """Costs a look at the documents. Raises StoreError if there is not one whole sequence."""
    documents = sum(int((np.diff(ends, prepend=0) > 0).sum()) for ends in store.documents.row_ends)
    positions = store.rows + (max(0, documents - 1) if separator is not None else 0)
    if positions < ctx_len:
        raise StoreError(
            f"{store.path}: its {store.rows} rows do not fill one sequence of {ctx_len}; "
            "give a smaller --ctx-len"
        )
    return Sequences(positions // ctx_len, ctx_len, positions % ctx_len)


class TokenLayer:
    """Lays out the rows of a store batch by batch, in storage order, each once."""

    def __init__(self, store: Store, model: str, separator: int | None) -> None:
        self._store, self._column, self._separator = store, f"token_{model}", separator
        self._document: int | None = None
        self._position = 0

    def place(self, chunk: int, rows: Int64[np.ndarray, " rows"]) -> Placed:
        """The next rows, numbers in the store, all of one chunk."""
        local = rows - int(self._store.chunk_rows_before[chunk])
        tokens = self._store.column_chunk(self._column, chunk)[local]
        documents = self._store.document_chunk(chunk)[local]
        start, shift = self._position, separators_before(documents, self._document)
        if self._separator is None:
            shift = np.zeros_like(shift)
        positions = np.arange(len(rows)) + shift
        self._document = int(documents[-1])
        self._position = start + int(positions[-1]) + 1
        laid = np.full(self._position - start, self._separator or 0, np.int32)
        laid[positions] = tokens
        return Placed(laid, start + positions)


def separators_before(
    documents: Int64[np.ndarray, " rows"], previous: int | None
) -> Int64[np.ndarray, " rows"]:
    """How many documents begin at or before each row, the very first of all not counted."""
    before = documents[0] if previous is None else previous
    return np.cumsum(np.diff(documents, prepend=before) != 0)
