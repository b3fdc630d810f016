"""How often, how strongly and on which labels every feature fires.

Counts and sums are exact. Quantiles of activations are read from a histogram of eight bins per
doubling: they are within 4.5% of the exact ones, and clipped to 2^-10 .. 2^10.
F features, L labels, N entries.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from analyze.labels import Labels
from analyze.sweep.seen import Entries, Seen

PER_OCTAVE, LOWEST, HIGHEST = 8, -10, 10
BINS = PER_OCTAVE * (HIGHEST - LOWEST)


class Firing:
    """Fires and summed activation (F, L), largest activation (F,), rows (L,), histogram (F, bins).

    Everything in float64 or whole numbers, on the CPU.
    """

    name = "firing"

    def __init__(self, features: int, labels: Labels) -> None:
        self.labels = labels
        count = len(labels.names)
        self._fires = torch.zeros(features, count, dtype=torch.int64)
        self._activation = torch.zeros(features, count, dtype=torch.float64)
        self._largest = torch.zeros(features, dtype=torch.float32)
        self._rows = torch.zeros(count, dtype=torch.int64)
        self._histogram = torch.zeros(features, BINS, dtype=torch.int64)

    def settings(self) -> dict[str, Any]:
        """The labels that firing is counted by."""
        return {"labels": self.labels.names}

    def update(self, seen: Seen) -> None:
        """Takes a batch in."""
        entries = seen.entries
        self.add(entries, self.labels.of_document[entries.documents], seen.labels)

    def add(self, entries: Entries, entry_labels: np.ndarray, row_labels: np.ndarray) -> None:
        """Adds entries with their labels, and the labels of all rows of the batch."""
        features = torch.from_numpy(entries.features)
        values = torch.from_numpy(entries.values)
        cells = features * len(self._rows) + torch.from_numpy(entry_labels).long()
        ones = torch.ones(len(cells), dtype=torch.int64)
        self._fires.view(-1).index_add_(0, cells, ones)
        self._activation.view(-1).index_add_(0, cells, values.double())
        self._largest.scatter_reduce_(0, features, values.float(), "amax")
        self._histogram.view(-1).index_add_(0, features * BINS + _bins(values), ones)
        self._rows += torch.bincount(torch.from_numpy(row_labels), minlength=len(self._rows))

    def state(self) -> dict[str, Tensor]:
        """All sums."""
        return {
            "fires": self._fires,
            "activation": self._activation,
            "largest": self._largest,
            "rows": self._rows,
            "histogram": self._histogram,
        }

    def absorb(self, state: dict[str, Tensor]) -> None:
        """Adds sums over other rows."""
        for name, value in self.state().items():
            if name == "largest":
                torch.maximum(value, state[name], out=value)
            else:
                value += state[name]

    @property
    def fires(self) -> np.ndarray:
        """Rows of each label on which each feature fires, int64 (F, L)."""
        return self._fires.numpy()

    @property
    def activation(self) -> np.ndarray:
        """Summed activation of each feature on each label (F, L)."""
        return self._activation.numpy()

    @property
    def largest(self) -> np.ndarray:
        """Largest activation of each feature, float32 (F,)."""
        return self._largest.numpy()

    @property
    def rows(self) -> np.ndarray:
        """Rows of each label (L,)."""
        return self._rows.numpy()

    @property
    def density(self) -> np.ndarray:
        """Share of all rows on which each feature fires (F,)."""
        share: np.ndarray = self.fires.sum(axis=1) / max(1, self.rows.sum())
        return share

    def rate_ratio(self, label: int) -> np.ndarray:
        """Firing rate per row on a label over that elsewhere (F,); inf if never elsewhere.

        NaN for features that never fire at all.
        """
        here, elsewhere = self.fires[:, label], self.fires.sum(axis=1) - self.fires[:, label]
        rows_elsewhere = self.rows.sum() - self.rows[label]
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio: np.ndarray = (here / self.rows[label]) / (elsewhere / rows_elsewhere)
        return ratio

    def shares(self) -> np.ndarray:
        """Share of each feature's firing that falls in each label (F, L); 0 if it never fires."""
        shares: np.ndarray = self.fires / np.maximum(1, self.fires.sum(axis=1, keepdims=True))
        return shares

    def quantiles(self, levels: list[float]) -> np.ndarray:
        """Quantiles of each feature's activations where it fires (F, levels); NaN if it never does.

        Upper edge of the bin that holds the quantile, but never above the largest activation.
        """
        reached = self._histogram.cumsum(dim=1).numpy()
        fires = reached[:, -1]
        edges = 2.0 ** (LOWEST + np.arange(1, BINS + 1) / PER_OCTAVE)
        found = np.full((len(fires), len(levels)), np.nan)
        for number, level in enumerate(levels):
            wanted = np.maximum(1, np.ceil(level * fires))
            first = (reached < wanted[:, None]).sum(axis=1)
            value = np.minimum(edges[np.minimum(first, BINS - 1)], self.largest)
            found[:, number] = np.where(fires > 0, value, np.nan)
        return found


def _bins(values: Tensor) -> Tensor:
    """Bin of the histogram that each activation lies in: (edge below, edge above]."""
    place = (values.double().log2() - LOWEST) * PER_OCTAVE
    return (place.ceil() - 1).clamp(0, BINS - 1).long()
