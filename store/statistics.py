"""Statistics of a hookpoint's rows, accumulated in float64 and merged by Chan's formula.

Exact up to float64 rounding: count, mean and sum of squared deviations per coordinate.
Approximate: quantiles of the rows' L2 norm, from a histogram with 64 bins per octave (a quantile
is off by at most 1.1%). Source of the merge: Chan, Golub & LeVeque 1979.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from store.bfloat16 import NATIVE as BFLOAT16
from store.bfloat16 import widened
from store.chunks import to_numpy

BINS_PER_OCTAVE = 64
LOWEST_BIN = -64 * BINS_PER_OCTAVE
SLICE_VALUES = 1 << 18  # in float64 they stay in a core's cache


@dataclass(frozen=True)
class RowStatistics:
    """Count, mean (width,), sum of squared deviations (width,), and norm histogram of rows."""

    count: int
    mean: np.ndarray
    squared_deviations: np.ndarray
    norm_bins: dict[int, int]

    @classmethod
    def empty(cls, width: int) -> RowStatistics:
        """Statistics of no rows."""
        return cls(0, np.zeros(width), np.zeros(width), {})

    @classmethod
    def of(cls, rows: Float[Tensor, "rows width"]) -> RowStatistics:
        """Statistics of `rows`, computed in float64 in threads, slice by slice."""
        values, width = to_numpy(rows), rows.shape[1]
        step = max(1, SLICE_VALUES // width)
        slices = [values[start : start + step] for start in range(0, len(values), step)]
        return merge(_threads().map(cls._of_slice, slices), width)

    @classmethod
    def _of_slice(cls, rows: np.ndarray) -> RowStatistics:
        exact = widened(rows) if rows.dtype == BFLOAT16 else rows
        values = exact.astype(np.float64)
        mean = values.mean(axis=0)
        norms = np.sqrt(np.einsum("rd,rd->r", values, values))
        values -= mean
        squares = np.einsum("rd,rd->d", values, values)
        with np.errstate(divide="ignore"):
            bins = np.floor(np.log2(norms) * BINS_PER_OCTAVE)
        numbers, counts = np.unique(np.maximum(bins, LOWEST_BIN).astype(int), return_counts=True)
        histogram = dict(zip(numbers.tolist(), counts.tolist(), strict=True))
        return cls(len(values), mean, squares, histogram)

    @property
    def variance(self) -> np.ndarray:
        """Population variance per coordinate (width,)."""
        return self.squared_deviations / max(self.count, 1)

    def norm_quantile(self, quantile: float) -> float:
        """Approximate quantile of the rows' L2 norms; 0 when there are no rows."""
        rank = quantile * self.count
        seen = 0
        for number in sorted(self.norm_bins):
            seen += self.norm_bins[number]
            if seen >= rank:
                return float(2 ** ((number + 0.5) / BINS_PER_OCTAVE))
        return 0.0

    def to_json(self) -> dict[str, Any]:
        """JSON values from which `from_json` rebuilds every bit."""
        return {
            "count": self.count,
            "mean": self.mean.tolist(),
            "squared_deviations": self.squared_deviations.tolist(),
            "norm_bins": {str(number): self.norm_bins[number] for number in sorted(self.norm_bins)},
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> RowStatistics:
        """Inverse of `to_json`."""
        return cls(
            count=value["count"],
            mean=np.array(value["mean"], np.float64),
            squared_deviations=np.array(value["squared_deviations"], np.float64),
            norm_bins={int(number): count for number, count in value["norm_bins"].items()},
        )


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="statistics")


# A forked process has no threads but the one that forked, and would wait for these for ever.
os.register_at_fork(after_in_child=_threads.cache_clear)


def merge(pieces: Iterable[RowStatistics], width: int) -> RowStatistics:
    """Statistics of all rows of `pieces` together."""
    total = RowStatistics.empty(width)
    for piece in pieces:
        total = _merge_two(total, piece)
    return total


def _merge_two(a: RowStatistics, b: RowStatistics) -> RowStatistics:
    if not a.count or not b.count:
        return b if b.count else a
    count = a.count + b.count
    delta = b.mean - a.mean
    bins = dict(a.norm_bins)
    for number, frequency in b.norm_bins.items():
        bins[number] = bins.get(number, 0) + frequency
    return RowStatistics(
        count=count,
        mean=a.mean + delta * (b.count / count),
        squared_deviations=a.squared_deviations
        + b.squared_deviations
        + delta**2 * (a.count * b.count / count),
        norm_bins=bins,
    )
