"""A few rows per feature to look at: those it fires on most, or a sample of all that it fires on.

At most one row per document. What is kept does not depend on the batches, nor on the order in which
shares of the store are added up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from analyze.sweep.seen import Entries, Seen

Choice = Literal["top", "sample"]


@dataclass(frozen=True)
class Kept:
    """Entries and what they are ranked by, float64 (entries,)."""

    entries: Entries
    rank_by: np.ndarray

    def take(self, index: np.ndarray) -> Kept:
        """Those at `index`."""
        return Kept(self.entries.take(index), self.rank_by[index])

    def join(self, other: Kept) -> Kept:
        """Both, one behind the other."""
        ranked = np.concatenate([self.rank_by, other.rank_by])
        return Kept(self.entries.join(other.entries), ranked)


class KeptRows:
    """`count` rows per feature; choice: the largest activations, or a pseudo-random sample.

    The sample takes, of every document, the row that a hash of feature and row ranks first, and of
    the documents those whose rows it ranks first: a uniform choice that no order of rows changes.
    """

    def __init__(self, choice: Choice, features: int, count: int) -> None:
        self.name = f"rows_{choice}"
        self._choice, self.count = choice, count
        self._floor = np.full(features, -np.inf)
        none = np.zeros(0, np.int64)
        self._kept = Kept(Entries(none, np.zeros(0, np.float32), none, none), np.zeros(0))

    def settings(self) -> dict[str, Any]:
        """How many rows are kept."""
        return {"count": self.count}

    def update(self, seen: Seen) -> None:
        """Takes a batch in."""
        self.add(seen.entries)

    def add(self, entries: Entries) -> None:
        """Takes entries; only those above a feature's current floor are looked at."""
        ranked = entries.values.astype(np.float64)
        if self._choice == "sample":
            ranked = _uniform(entries.rows, entries.features)
        candidates = np.flatnonzero(ranked > self._floor[entries.features])
        if len(candidates):
            self._keep(Kept(entries, ranked).take(candidates))

    def state(self) -> dict[str, Tensor]:
        """The kept entries."""
        kept = self._kept.entries
        arrays = {"features": kept.features, "values": kept.values, "rows": kept.rows}
        arrays |= {"documents": kept.documents, "rank_by": self._kept.rank_by}
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def absorb(self, state: dict[str, Tensor]) -> None:
        """Takes what was kept of other rows."""
        part = {name: value.numpy() for name, value in state.items()}
        rank_by = part.pop("rank_by")
        if len(rank_by):
            self._keep(Kept(Entries(**part), rank_by))

    def of(self, feature: int) -> list[tuple[int, float]]:
        """(row, activation) of a feature's rows, first in rank first."""
        start, stop = np.searchsorted(self._kept.entries.features, [feature, feature + 1])
        rows, values = self._kept.entries.rows[start:stop], self._kept.entries.values[start:stop]
        return list(zip(rows.tolist(), values.tolist(), strict=True))

    def _keep(self, candidates: Kept) -> None:
        joined = self._kept.join(candidates)
        of = joined.entries
        best_first = np.lexsort((of.rows, -joined.rank_by, of.documents, of.features))
        joined = joined.take(best_first)
        of = joined.entries
        new = np.ones(len(best_first), bool)
        new[1:] = (np.diff(of.features) != 0) | (np.diff(of.documents) != 0)
        joined = joined.take(np.flatnonzero(new))
        of = joined.entries
        joined = joined.take(np.lexsort((of.rows, -joined.rank_by, of.features)))
        features = joined.entries.features
        rank = np.arange(len(features)) - np.searchsorted(features, features)
        self._kept = joined.take(np.flatnonzero(rank < self.count))
        last = rank[rank < self.count] == self.count - 1
        self._floor[self._kept.entries.features[last]] = self._kept.rank_by[last]


def _uniform(rows: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Numbers in [0, 1) that look random, each a function of its row and feature (splitmix64)."""
    with np.errstate(over="ignore"):
        mixed = rows.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        mixed += (features.astype(np.uint64) + np.uint64(1)) * np.uint64(0xD1B54A32D192ED03)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((mixed ^ (mixed >> np.uint64(31))) >> np.uint64(11)) / float(1 << 53)
