"""Text around the rows on which a feature fires most, from the store alone: no tokenizer.

Each piece of text is what one row adds to its document (from the previous row's end to its own),
so that the pieces of a context join up to the exact text, and carries that row's activation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from store.reader import Store
from store.sweep import read_range
from train.dictionary.crosscoder import Crosscoder


@dataclass(frozen=True)
class Piece:
    """A stretch of text with its row's activation relative to the context's peak, 0 to 1."""

    text: str
    strength: float
    peak: bool


@dataclass(frozen=True)
class Context:
    """A feature's firing in its text; `document` numbers the store's documents."""

    document: int
    label: str
    activation: float
    pieces: list[Piece]


def context_of(
    store: Store, dictionary: Crosscoder, feature: int, row: int, activation: float, reach: int
) -> Context:
    """The text `reach` rows around `row`, within its document."""
    start, stop = max(0, row - reach), min(store.rows, row + reach + 1)
    batch = read_range(store, start, stop)
    documents = store.column_range("document", start, stop)
    ends = store.column_range("char_end", start, stop).astype(np.int64)
    inside = np.flatnonzero(documents == documents[row - start])
    codes = dictionary.encode(batch.activations)
    strengths = np.zeros(stop - start)
    here = (codes.pattern.columns == feature).cpu()
    strengths[codes.pattern.rows.cpu()[here].numpy()] = codes.values.cpu()[here].numpy()
    document = int(documents[row - start])
    text = store.documents.text(document)
    first = int(inside[0])
    before = int(ends[first - 1]) if first and documents[first - 1] == document else None
    begin = before if before is not None else _start_of(store, start + first)
    pieces = []
    for position in inside.tolist():
        end = int(ends[position])
        strength = float(strengths[position] / activation) if activation > 0 else 0.0
        pieces.append(Piece(text[begin:end], min(1.0, strength), position == row - start))
        begin = max(begin, end)
    label = store.documents.label_names[int(store.documents.labels[document])]
    return Context(document, label, activation, pieces)


def _start_of(store: Store, row: int) -> int:
    """First character of a row's own span."""
    return int(store.column_range("char_start", row, row + 1)[0])
