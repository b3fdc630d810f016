"""Ranks the features that one model has and the other lacks, and holds them against what is known.

For a partitioned dictionary the claim is membership in a model's exclusive group; for an ordinary
crosscoder it is an extreme relative decoder norm. A claim here is where to look, not a verdict.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from analyze.norms import model_pair
from analyze.statistics.firing import Firing
from pipeline.errors import ConfigError
from train.dictionary.crosscoder import Crosscoder


@dataclass(frozen=True)
class Claim:
    """Features claimed to be a model's own, strongest first, by what rule, and their R."""

    model: str
    rule: str
    features: list[int]
    relative_norms: list[float]


@dataclass(frozen=True)
class PlantedCount:
    """Of `of` claimed features, `fires_there` fire mostly on the domain only their model saw."""

    model: str
    label: str
    fires_there: int
    of: int


def claims(dictionary: Crosscoder, table: pl.DataFrame, count: int, min_fires: int) -> list[Claim]:
    """One claim per model, in the models' order, of features that fire on `min_fires` rows."""
    active = table.filter(pl.col("fires") >= min_fires)
    return [_claim(dictionary, active, model, count) for model in model_pair(dictionary)]


def _claim(dictionary: Crosscoder, active: pl.DataFrame, model: str, count: int) -> Claim:
    group = dictionary.partition.exclusive_group(model)
    if group is not None:
        own = active.filter(pl.col("group") == group.name).sort("activation_sum", descending=True)
        rule = "exclusive group, by summed activation"
    else:
        first = model == model_pair(dictionary)[0]
        norm = pl.col("relative_decoder_norm")
        own = active.filter(norm > 0.5 if first else norm < 0.5).sort(norm, descending=first)
        rule = f"most extreme relative decoder norm ({'largest' if first else 'smallest'})"
    own = own.head(count)
    return Claim(model, rule, own["feature"].to_list(), own["relative_decoder_norm"].to_list())


def planted_counts(
    found: list[Claim], sums: Firing, planted: dict[str, str], ratio: float
) -> list[PlantedCount]:
    """How many claimed features fire `ratio` times as often per row on the planted label."""
    counts = []
    for claim in found:
        if claim.model in planted:
            label = planted[claim.model]
            ratios = sums.rate_ratio(sums.labels.names.index(label))[claim.features]
            there = int(np.count_nonzero(ratios >= ratio))
            counts.append(PlantedCount(claim.model, label, there, len(claim.features)))
    return counts


def check_planted_labels(planted: dict[str, str], labels: list[str]) -> None:
    """Raises ConfigError if a planted label is that of no document."""
    for model, label in planted.items():
        if label not in labels:
            raise ConfigError(
                f"analyze.planted.{model}: no document is labelled {label!r}; "
                f"the store has {', '.join(labels)}"
            )
