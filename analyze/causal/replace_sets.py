"""Sets of features for the replacement test: all, and the halves that a ranking picks.

A ranking that means something puts those features first that carry what differs between the
models: its best half then closes more of the gap than its worst, and than a random one. F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from jaxtyping import Bool, Float64, Int64

from analyze.config import AnalyzeConfig
from analyze.norms import model_norms, model_pair, relative_decoder_norm, tags
from analyze.tables import Tables
from pipeline.errors import ConfigError
from train.dictionary.crosscoder import Crosscoder

NORM, Q = "norm", "q"
SHORT = {Q: "exclusivity.q"}


@dataclass(frozen=True)
class FeatureSet:
    """Some features, what they are called, and what ranked them.

    members: None for what is run beside them and is no set of features.
    """

    name: str
    ranking: str | None
    members: Bool[np.ndarray, " F"] | None


def candidates(
    dictionary: Crosscoder,
    fires: Int64[np.ndarray, " F"],
    among: Sequence[str],
    config: AnalyzeConfig,
) -> Bool[np.ndarray, " F"]:
    """Features that fire, of the partition groups or tags (`analyze norms`) named; none: of all.

    Raises ConfigError for a name that is neither, and where fewer than two are left.
    """
    groups = np.array(dictionary.partition.group_of_feature())
    models = model_pair(dictionary)
    tag = np.array(tags(_relative(dictionary), models, config.norm_exclusive, config.norm_shared))
    known = list(dict.fromkeys([*groups.tolist(), *sorted(set(tag.tolist()))]))
    chosen = np.zeros(len(groups), bool) if among else np.ones(len(groups), bool)
    for name in among:
        if name not in known:
            raise ConfigError(f"--among {name}: there are features of {', '.join(known)}")
        chosen |= (groups == name) | (tag == name)
    chosen &= fires > 0
    if np.count_nonzero(chosen) < 2:
        of = f" of {' or '.join(among)}" if among else ""
        raise ConfigError(
            f"--among: {np.count_nonzero(chosen)} features{of} fire on the store, which is too few "
            "to halve; name more"
        )
    return chosen


def feature_sets(
    dictionary: Crosscoder,
    chosen: Bool[np.ndarray, " F"],
    rankings: Sequence[str],
    tables: Tables,
    draws: int,
    seed: int,
) -> list[FeatureSet]:
    """Random halves, the worst and best half by each ranking, and all; equally large halves.

    rankings: norm (|R - 1/2|, largest first), q (of the verdicts), or TABLE.COLUMN of the analysis
    folder, smallest first, with a minus in front largest first. Features that a table does not
    know come last; ties are broken by norm. Raises ConfigError for what is not there.
    """
    places = np.flatnonzero(chosen)
    half = len(places) // 2
    found = []
    for draw in range(draws):
        picked = np.random.default_rng([seed, draw]).choice(places, half, replace=False)
        found.append(FeatureSet("random", f"draw {draw + 1}", _members(chosen, picked)))
    extreme = -np.abs(np.nan_to_num(_relative(dictionary), nan=0.5) - 0.5)
    for ranking in rankings:
        first = extreme if ranking == NORM else _column(tables, ranking, len(chosen))
        order = places[np.lexsort((places, extreme[places], first[places]))]
        found.append(FeatureSet("worst", ranking, _members(chosen, order[len(order) - half :])))
        found.append(FeatureSet("best", ranking, _members(chosen, order[:half])))
    return [*found, FeatureSet("all", None, chosen)]


def default_rankings(tables: Tables) -> list[str]:
    """By the verdicts' q where there are verdicts, else by norm."""
    return [Q if tables.read("exclusivity") is not None else NORM]


def _members(chosen: Bool[np.ndarray, " F"], picked: np.ndarray) -> Bool[np.ndarray, " F"]:
    members = np.zeros_like(chosen)
    members[picked] = True
    return members


def _relative(dictionary: Crosscoder) -> Float64[np.ndarray, " F"]:
    norms = model_norms(dictionary)
    first, second = model_pair(dictionary)
    return relative_decoder_norm(norms[first], norms[second]).astype(np.float64)


def _column(tables: Tables, ranking: str, features: int) -> Float64[np.ndarray, " F"]:
    """A number per feature, smallest best; the mean where a feature has several lines."""
    name, _, column = SHORT.get(ranking, ranking).removeprefix("-").partition(".")
    table = tables.read(name) if column else None
    if table is None or "feature" not in table.columns:
        raise ConfigError(
            f"--ranking {ranking}: no table {name} of features in {tables.folder} that is of this "
            f"dictionary; run the command that writes it first, or rank by {NORM}"
        )
    numbers = [c for c in table.columns if table[c].dtype.is_numeric() and c != "feature"]
    if column not in numbers:
        raise ConfigError(
            f"--ranking {ranking}: table {name} has no number {column!r}; it has "
            f"{', '.join(numbers)}"
        )
    value = pl.col(column).cast(pl.Float64).fill_nan(None).mean()
    means = table.group_by("feature").agg(value).drop_nulls()
    sign = -1.0 if ranking.startswith("-") else 1.0
    found = np.full(features, np.inf)
    found[means["feature"].to_numpy()] = sign * means[column].to_numpy()
    return found
