"""What a sweep accumulates per feature: firing counts and sums per label, and the top rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Entries:
    """Active entries, each (entries,): feature, activation, store row, document."""

    features: np.ndarray
    values: np.ndarray
    rows: np.ndarray
    documents: np.ndarray

    def take(self, index: np.ndarray) -> Entries:
        """The entries at `index`."""
        return Entries(
            self.features[index], self.values[index], self.rows[index], self.documents[index]
        )

    def join(self, other: Entries) -> Entries:
        """Both, one behind the other."""
        return Entries(
            np.concatenate([self.features, other.features]),
            np.concatenate([self.values, other.values]),
            np.concatenate([self.rows, other.rows]),
            np.concatenate([self.documents, other.documents]),
        )


class FeatureSums:
    """Float64 fires and activation (F, L), largest activation (F,), and rows per label (L,)."""

    def __init__(self, features: int, labels: int) -> None:
        self.fires = np.zeros((features, labels))
        self.activation = np.zeros((features, labels))
        self.largest = np.zeros(features)
        self.rows = np.zeros(labels, np.int64)

    def update(self, entries: Entries, entry_labels: np.ndarray, row_labels: np.ndarray) -> None:
        """Adds a batch: its entries with their labels, and the labels of all of its rows."""
        shape = self.fires.shape
        cell = entries.features * shape[1] + entry_labels
        size = shape[0] * shape[1]
        self.fires += np.bincount(cell, minlength=size).reshape(shape)
        self.activation += np.bincount(cell, entries.values, minlength=size).reshape(shape)
        np.maximum.at(self.largest, entries.features, entries.values)
        self.rows += np.bincount(row_labels, minlength=shape[1])

    @property
    def density(self) -> np.ndarray:
        """Share of all rows on which each feature fires (F,)."""
        return self.fires.sum(axis=1) / max(1, self.rows.sum())

    def rate_ratio(self, label: int) -> np.ndarray:
        """Firing rate per row on a label over that elsewhere (F,); inf if never elsewhere.

        NaN for features that never fire at all.
        """
        here, elsewhere = self.fires[:, label], self.fires.sum(axis=1) - self.fires[:, label]
        rows_elsewhere = self.rows.sum() - self.rows[label]
        with np.errstate(divide="ignore", invalid="ignore"):
            return (here / self.rows[label]) / (elsewhere / rows_elsewhere)

    def shares(self) -> np.ndarray:
        """Share of each feature's firing that falls in each label (F, L); 0 if it never fires."""
        return self.fires / np.maximum(1, self.fires.sum(axis=1, keepdims=True))


class TopRows:
    """The rows with the largest activations per feature, at most one per document."""

    def __init__(self, features: int, count: int) -> None:
        self.count = count
        self._floor = np.zeros(features, np.float32)
        self._kept = Entries(
            np.zeros(0, np.int64),
            np.zeros(0, np.float32),
            np.zeros(0, np.int64),
            np.zeros(0, np.int64),
        )

    def update(self, entries: Entries) -> None:
        """Takes a batch; only entries above a feature's current floor are looked at."""
        candidates = entries.take(np.flatnonzero(entries.values > self._floor[entries.features]))
        if not len(candidates.features):
            return
        joined = self._kept.join(candidates)
        by_document = np.lexsort((-joined.values, joined.documents, joined.features))
        joined = joined.take(by_document)
        new = np.ones(len(by_document), bool)
        new[1:] = (np.diff(joined.features) != 0) | (np.diff(joined.documents) != 0)
        joined = joined.take(np.flatnonzero(new))
        joined = joined.take(np.lexsort((joined.rows, -joined.values, joined.features)))
        first = np.searchsorted(joined.features, joined.features)
        rank = np.arange(len(first)) - first
        self._kept = joined.take(np.flatnonzero(rank < self.count))
        last = rank[rank < self.count] == self.count - 1
        self._floor[self._kept.features[last]] = self._kept.values[last]

    def of(self, feature: int) -> list[tuple[int, float]]:
        """(row, activation) of a feature's top rows, largest first."""
        start, stop = np.searchsorted(self._kept.features, [feature, feature + 1])
        rows, values = self._kept.rows[start:stop], self._kept.values[start:stop]
        return list(zip(rows.tolist(), values.tolist(), strict=True))
