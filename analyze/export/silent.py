"""Stretches of text on which given features do not fire: what activating ones are told from.

Rows are drawn at random from the whole store, with as many rows of their document around them as
the contexts have; what fires there is found by encoding them, once for all features.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64

from analyze.export.prompts import plain
from analyze.subject import Subject
from store.sweep import read_range

SEED = 0


@dataclass(frozen=True)
class Window:
    """A stretch of a document, and the features that fire in it, in order."""

    text: str
    fires: Int64[np.ndarray, " fired"]

    def silent(self, feature: int) -> bool:
        """Whether the feature fires nowhere in it."""
        at = int(np.searchsorted(self.fires, feature))
        return at == len(self.fires) or int(self.fires[at]) != feature


def draw_windows(subject: Subject, count: int, reach: int) -> Iterator[Window]:
    """At most `count` windows of `reach` rows on either side of rows drawn at random."""
    rows = subject.store.rows
    drawn = np.random.default_rng(SEED).choice(rows, min(count, rows), replace=False)
    return (_window(subject, row, reach) for row in drawn.tolist())


def pick(windows: list[Window], feature: int, count: int) -> list[Window]:
    """At most `count` in which the feature is silent, drawn at random; others for others."""
    fitting = [window for window in windows if window.silent(feature)]
    order = np.random.default_rng([SEED, feature]).permutation(len(fitting))
    return [fitting[n] for n in order[:count].tolist()]


@torch.no_grad()
def _window(subject: Subject, row: int, reach: int) -> Window:
    store = subject.store
    start, stop = max(0, row - reach), min(store.rows, row + reach + 1)
    documents = store.column_range("document", start, stop)
    document = int(documents[row - start])
    inside = np.flatnonzero(documents == document)
    start, stop = start + int(inside[0]), start + int(inside[-1]) + 1
    codes = subject.dictionary.encode(read_range(store, start, stop).activations)
    first = int(store.column_range("char_start", start, start + 1)[0])
    last = int(store.column_range("char_end", stop - 1, stop)[0])
    fires = np.unique(codes.pattern.columns.cpu().numpy())
    return Window(plain(store.documents.text(document)[first:last]), fires)
