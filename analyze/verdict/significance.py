"""From evidence and its null to a set of findings with a stated false-discovery rate.

Evidence is such that small values speak for exclusivity. The p-value of x is how often the null is
as extreme: (1 + #{null <= x}) / (1 + n); it cannot be below 1 / (1 + n). Of several nulls, and of
several pieces of evidence that all must hold, the largest p-value counts: the feature is taken for
not exclusive as long as one of them could explain it (the intersection-union test of Berger 1982).
Benjamini & Hochberg 1995: q_(i) = min over j >= i of p_(j) m / j; those with q <= FDR are called,
and of them at most that share is false on average, if p-values of features that are not exclusive
are no smaller than uniform, and independent or positively dependent.
"""

from __future__ import annotations

import numpy as np

NEIGHBOURS = 64
SMALLEST = 1e-4  # evidence below, or below zero, is as good as none
SMALLEST_SPREAD = 1e-6


def empirical_p(observed: np.ndarray, null: np.ndarray) -> np.ndarray:
    """p-value of each observation against a sample of the null; NaN where it is not known.

    observed (m,); null (n,), in which NaN counts for nothing. Raises ValueError without a null.
    """
    known = np.sort(null[~np.isnan(null)])
    if not len(known):
        raise ValueError("no null to compare with")
    reached = np.searchsorted(known, observed, side="right")
    return np.where(np.isnan(observed), np.nan, (1 + reached) / (1 + len(known)))


def conditional_p(
    observed: np.ndarray,
    fires: np.ndarray,
    null: np.ndarray,
    null_fires: np.ndarray,
    *,
    logged: bool = True,
    neighbours: int = NEIGHBOURS,
) -> np.ndarray:
    """p-values (m,) against those of the null (n,) that fire about as often; NaN where unknown.

    What is seldom active is read less well from anything, so that evidence is compared on a scale
    of its own: log evidence (unless `logged` is false: what may be negative), less the median and
    over the spread (interquartile range) of the `neighbours` features of the null nearest in log
    fires. Approximate: it takes the null's shape, beyond position and spread, for the same
    everywhere.
    """
    place, null_place = np.log(np.maximum(fires, 1)), np.log(np.maximum(null_fires, 1))
    if logged:
        observed, null = _log(observed), _log(null)
    places = np.concatenate([place, null_place])
    middle, spread = _local(null_place, null, places, neighbours)
    scaled = (np.concatenate([observed, null]) - middle) / spread
    return empirical_p(scaled[: len(observed)], scaled[len(observed) :])


def _local(
    null_place: np.ndarray, null: np.ndarray, places: np.ndarray, neighbours: int
) -> tuple[np.ndarray, np.ndarray]:
    """Median and interquartile range of the null nearest to each place (places,)."""
    order = np.argsort(null_place, kind="stable")
    null_place, null = null_place[order], null[order]
    count = min(neighbours, len(null))
    first = np.searchsorted(null_place, places) - count // 2
    first = np.clip(first, 0, len(null) - count)
    near = null[first[:, None] + np.arange(count)]
    low, middle, high = np.quantile(near, [0.25, 0.5, 0.75], axis=1)
    return middle, np.maximum(high - low, SMALLEST_SPREAD)


def _log(evidence: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(evidence, SMALLEST))


def largest(p_values: list[np.ndarray]) -> np.ndarray:
    """The largest p-value per feature over all tests that it must pass; 1 where one is unknown."""
    return np.nan_to_num(np.max(np.stack(p_values), axis=0), nan=1.0)


def false_discovery_q(p: np.ndarray) -> np.ndarray:
    """Benjamini-Hochberg adjusted p-values (m,)."""
    if not len(p):
        return p.copy()
    order = np.argsort(p, kind="stable")
    raised = p[order] * len(p) / np.arange(1, len(p) + 1)
    q = np.empty_like(p)
    q[order] = np.minimum.accumulate(raised[::-1])[::-1]
    return np.minimum(q, 1.0)
