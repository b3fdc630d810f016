"""Text around rows on which features fire, of many features at once, from the store alone.

Each piece of text is what one row adds to its document (from the previous row's end to its own),
so that the pieces of a context join up to the exact text, and carries that row's activation.
Costs an encoding of every row that any window holds, once and in storage order, to the features
asked for alone, and the decoding of each document once; memory for some 30 bytes per row of every
window, and its text.
C contexts, W rows of a window.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Int64

from analyze.causal.passages import row_edges
from analyze.chosen_rows import activations_at, sorted_unique, take_column
from analyze.subject import Subject
from store.reader import Store
from train.dictionary.crosscoder import Crosscoder

NO_ACTIVATION = 1e-30  # what strengths are divided by where a feature's largest activation is 0


@dataclass(frozen=True)
class Firings:
    """Where features fire: of each context the feature, the store's row, the activation there.

    largest: the activation that counts as strength 1, in general the feature's largest.
    """

    features: Int64[np.ndarray, " contexts"]
    rows: Int64[np.ndarray, " contexts"]
    activations: Float32[np.ndarray, " contexts"]
    largest: Float32[np.ndarray, " contexts"]

    def __len__(self) -> int:
        return len(self.rows)

    def part(self, start: int, stop: int) -> Firings:
        """Those from `start` to before `stop`."""
        run = slice(start, stop)
        return Firings(self.features[run], self.rows[run], self.activations[run], self.largest[run])


@dataclass(frozen=True)
class Piece:
    """A stretch of text with its row's activation relative to the largest, 0 to 1."""

    text: str
    strength: float
    peak: bool


@dataclass(frozen=True)
class Context:
    """A feature's firing in its text; `document` numbers the store's documents.

    texts: the pieces; strengths: 0 to 1, one per piece; peak: the piece of the row asked for.
    """

    document: int
    label: str
    activation: float
    texts: list[str]
    strengths: Float32[np.ndarray, " pieces"]
    peak: int

    @cached_property
    def pieces(self) -> list[Piece]:
        """The same, piece by piece."""
        found = zip(self.texts, self.strengths.tolist(), strict=True)
        return [Piece(text, value, n == self.peak) for n, (text, value) in enumerate(found)]


def context_of(
    store: Store, dictionary: Crosscoder, feature: int, row: int, activation: float, reach: int
) -> Context:
    """The text `reach` rows around `row`, within its document; strengths relative to `row`'s."""
    value = np.array([activation], np.float32)
    firing = Firings(np.array([feature]), np.array([row]), value, value)
    return read_contexts(Subject(store, dictionary, Path()), firing, reach, 2 * reach + 2)[0]


def read_contexts(
    subject: Subject,
    firings: Firings,
    reach: int,
    batch_rows: int,
    on_contexts: Callable[[float], None] = lambda contexts: None,
) -> list[Context]:
    """The text `reach` rows around each firing, within its document, in the firings' order.

    batch_rows: encoded at a time; on_contexts is told of each batch how many contexts' share of
    the rows it is.
    """
    if not len(firings):
        return []
    windows = _windows(subject.store, firings.rows, reach)
    values_CW = _values(subject, firings.features, windows, batch_rows, on_contexts)
    values_CW[:, reach + 1] = firings.activations  # not that of a batch of another shape
    largest_C = np.maximum(firings.largest, np.float32(NO_ACTIVATION))
    strengths_CW = np.clip(values_CW / largest_C[:, None], 0, 1)
    return _contexts(subject, firings, windows, strengths_CW, reach)


@dataclass(frozen=True)
class _Windows:
    """Rows around each firing; column 0 is the row before the first that is shown.

    inside_CW: rows of the firing's own document; the others' numbers mean nothing.
    """

    documents_C: Int64[np.ndarray, " contexts"]
    rows_CW: Int64[np.ndarray, "contexts window"]
    inside_CW: Bool[np.ndarray, "contexts window"]

    @cached_property
    def needed(self) -> Int64[np.ndarray, " rows"]:
        """Every row that is shown, or stands before one, once, ascending."""
        return sorted_unique(self.rows_CW[self.inside_CW])

    @cached_property
    def places(self) -> Int64[np.ndarray, " pairs"]:
        """Of the rows inside, window by window: where each is among `needed`."""
        return np.searchsorted(self.needed, self.rows_CW[self.inside_CW])

    def spread(self, of_needed: np.ndarray) -> np.ndarray:
        """Values of `needed` in the windows (C, W); 0 outside."""
        spread = np.zeros(self.rows_CW.shape, of_needed.dtype)
        spread[self.inside_CW] = of_needed[self.places]
        return spread


def _windows(store: Store, rows_C: Int64[np.ndarray, " contexts"], reach: int) -> _Windows:
    edges = row_edges(store)
    documents_C = np.searchsorted(edges, rows_C, side="right") - 1
    rows_CW = rows_C[:, None] + np.arange(-reach - 1, reach + 1)
    first_C1, stop_C1 = edges[documents_C][:, None], edges[documents_C + 1][:, None]
    return _Windows(documents_C, rows_CW, (rows_CW >= first_C1) & (rows_CW < stop_C1))


def _values(
    subject: Subject,
    features_C: Int64[np.ndarray, " contexts"],
    windows: _Windows,
    batch_rows: int,
    on_contexts: Callable[[float], None],
) -> Float32[np.ndarray, "contexts window"]:
    """Each context's feature at the rows of its window; 0 outside and in column 0."""
    shown_CW = windows.inside_CW.copy()
    shown_CW[:, 0] = False
    contexts_N, columns_N = np.nonzero(shown_CW)
    rows_N, features_N = windows.rows_CW[contexts_N, columns_N], features_C[contexts_N]
    values_CW = np.zeros(shown_CW.shape, np.float32)

    def on_share(share: float) -> None:
        on_contexts(share * len(shown_CW))

    found_N = activations_at(subject, rows_N, features_N, batch_rows, on_share)
    values_CW[contexts_N, columns_N] = found_N
    return values_CW


def _contexts(
    subject: Subject, firings: Firings, windows: _Windows, strengths_CW: np.ndarray, reach: int
) -> list[Context]:
    """Cuts the texts, document by document."""
    inside_CW, documents, labels = windows.inside_CW, subject.store.documents, subject.labels
    begins_CW, ends_CW = _cuts(subject.store, windows)
    first_C = 1 + inside_CW[:, 1:].argmax(axis=1)
    stop_C = first_C + inside_CW[:, 1:].sum(axis=1)
    found: dict[int, Context] = {}
    document, text = -1, ""
    for n in np.argsort(windows.documents_C, kind="stable").tolist():
        if windows.documents_C[n] != document:
            document = int(windows.documents_C[n])
            text = documents.text(document)
        run = slice(int(first_C[n]), int(stop_C[n]))
        cuts = zip(begins_CW[n, run].tolist(), ends_CW[n, run].tolist(), strict=True)
        found[n] = Context(
            document,
            labels.names[int(labels.of_document[document])],
            float(firings.activations[n]),
            [text[begin:end] for begin, end in cuts],
            strengths_CW[n, run],
            reach + 1 - run.start,
        )
    return [found[n] for n in range(len(firings))]


def _cuts(
    store: Store, windows: _Windows
) -> tuple[Int64[np.ndarray, "contexts window"], Int64[np.ndarray, "contexts window"]]:
    """First character, and the one behind the last, of every row's piece (C, W).

    The first piece of a document begins where its row does. Ends never run backwards: a row that
    ends before its predecessor adds no text.
    """
    ends_CW = windows.spread(take_column(store, "char_end", windows.needed))
    own_C = windows.rows_CW[np.arange(len(ends_CW)), windows.inside_CW.argmax(axis=1)]
    firsts, place_C = np.unique(own_C, return_inverse=True)
    starts_C = take_column(store, "char_start", firsts)[place_C]
    before_C = np.where(windows.inside_CW[:, 0], ends_CW[:, 0], starts_C)
    reached_CW = np.maximum.accumulate(
        np.concatenate([before_C[:, None], ends_CW[:, 1:]], axis=1), axis=1
    )
    begins_CW = np.concatenate([reached_CW[:, :1], reached_CW[:, :-1]], axis=1)
    return begins_CW, ends_CW
