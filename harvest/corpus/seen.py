"""A set of 64-bit hashes that takes 8 bytes each, and up to 30 MB beside."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

MOST_RECENT = 1 << 18


class HashSet:
    """Grows by one hash at a time: a sorted array of the older, a Python set of the latest."""

    def __init__(self, hashes: Iterable[int] = ()) -> None:
        self._sorted = np.sort(np.fromiter(hashes, np.uint64))
        self._recent: set[int] = set()

    def add(self, value: int) -> bool:
        """Adds a hash; whether it was new."""
        if value in self._recent or self._is_sorted_in(value):
            return False
        self._recent.add(value)
        if len(self._recent) >= MOST_RECENT:
            self._settle()
        return True

    def _is_sorted_in(self, value: int) -> bool:
        place = int(np.searchsorted(self._sorted, np.uint64(value)))
        return place < len(self._sorted) and int(self._sorted[place]) == value

    def _settle(self) -> None:
        recent = np.sort(np.fromiter(self._recent, np.uint64, len(self._recent)))
        # Stable sorting merges two sorted runs in linear time.
        self._sorted = np.sort(np.concatenate([self._sorted, recent]), kind="stable")
        self._recent = set()
