"""Each feature's best match in the other dictionary, by direction or by activity.

Of the pairs that were looked at (see coactivation.py), among features that fire. Pure arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import Tensor

from analyze.compare.coactivation import Correlations
from analyze.compare.directions import Candidates, Nearest

By = Literal["direction", "activity"]


@dataclass(frozen=True)
class Pairs:
    """Pairs of features, (pairs,) each; cosine is NaN where no hookpoint sees both of them."""

    first: np.ndarray
    other: np.ndarray
    cosine: np.ndarray
    correlation: np.ndarray

    def take(self, index: np.ndarray) -> Pairs:
        """The pairs at `index`."""
        return Pairs(
            self.first[index], self.other[index], self.cosine[index], self.correlation[index]
        )


@dataclass(frozen=True)
class Matches:
    """Per feature (F,): its match, -1 for none, the pair's cosine and correlation.

    mutual: whether the match's own match is this feature.
    """

    feature: np.ndarray
    cosine: np.ndarray
    correlation: np.ndarray
    mutual: np.ndarray


def pairs_of(nearest: Nearest, found: Correlations) -> Pairs:
    """All pairs with candidates, from either side, and of groups apart each feature's best."""
    first, other = _flat(nearest.of_first), _flat(nearest.of_other)
    parts = [
        Pairs(first[0], first[1], first[2], _numbers(found.of_first).ravel()),
        Pairs(other[1], other[0], other[2], _numbers(found.of_other).ravel()),
        *(_best_apart(*slices, r) for slices, r in zip(nearest.apart, found.apart, strict=True)),
    ]
    joined = Pairs(
        np.concatenate([part.first for part in parts]),
        np.concatenate([part.other for part in parts]),
        np.concatenate([part.cosine for part in parts]),
        np.concatenate([part.correlation for part in parts]),
    )
    return joined.take(np.flatnonzero((joined.first >= 0) & (joined.other >= 0)))


def match(
    pairs: Pairs, by: By, alive_first: np.ndarray, alive_other: np.ndarray
) -> tuple[Matches, Matches]:
    """The matches of the first dictionary's features, and of the other's.

    alive: which features fire, bool (F_1,), (F_2,); of equally good matches the lowest number.
    """
    score = pairs.cosine if by == "direction" else pairs.correlation
    usable = alive_first[pairs.first] & alive_other[pairs.other] & ~np.isnan(score)
    pairs, score = pairs.take(np.flatnonzero(usable)), score[usable]
    best = (
        _best(pairs.first, pairs.other, score, len(alive_first)),
        _best(pairs.other, pairs.first, score, len(alive_other)),
    )
    partner = _at(pairs.other, best[0], -1), _at(pairs.first, best[1], -1)
    first, other = (
        Matches(
            partner[side],
            _at(pairs.cosine, best[side], np.nan),
            _at(pairs.correlation, best[side], np.nan),
            _at(partner[1 - side], partner[side], -2) == np.arange(len(partner[side])),
        )
        for side in (0, 1)
    )
    return first, other


def mean_max_cosine(matches: Matches) -> float | None:
    """Mean of the cosine of each feature with its match by direction (MMCS); None without any."""
    known = matches.cosine[matches.feature >= 0]
    return float(known.mean()) if len(known) else None


def _best(keys: np.ndarray, partners: np.ndarray, score: np.ndarray, count: int) -> np.ndarray:
    """Per key the pair with the highest score, -1 where there is none."""
    order = np.lexsort((partners, -score, keys))
    found = np.full(count, -1)
    present, places = np.unique(keys[order], return_index=True)
    found[present] = order[places]
    return found


def _at(values: np.ndarray, index: np.ndarray, missing: float) -> np.ndarray:
    """Values at `index`, and `missing` where that is -1."""
    if not len(values):
        return np.full(len(index), missing)
    taken: np.ndarray = np.where(index >= 0, values[index], missing)
    return taken


def _flat(candidates: Candidates) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Feature, candidate and cosine of every pair."""
    places = candidates.features.cpu().numpy()
    own = np.repeat(np.arange(len(places)), places.shape[1])
    return own, places.ravel(), _numbers(candidates.cosines).ravel()


def _best_apart(rows: slice, columns: slice, correlation: Tensor) -> Pairs:
    """Of two groups, the pairs that are the best ones of their row or of their column."""
    r = np.nan_to_num(_numbers(correlation), nan=-np.inf)
    by_row = np.arange(r.shape[0]), r.argmax(axis=1)
    by_column = r.argmax(axis=0), np.arange(r.shape[1])
    first, other = (
        np.concatenate([by_row[0], by_column[0]]),
        np.concatenate([by_row[1], by_column[1]]),
    )
    best = r[first, other]
    best[np.isinf(best)] = np.nan
    return Pairs(first + rows.start, other + columns.start, np.full(len(best), np.nan), best)


def _numbers(values: Tensor) -> np.ndarray:
    found: np.ndarray = values.detach().cpu().double().numpy()
    return found
