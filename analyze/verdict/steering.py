"""Steering as evidence: what a feature's direction does in the other model, beside shared features.

Only those features are steered whose q by the other evidence is at most the largest FDR that is
told of. That leaves out none that could be called: evidence that is added raises p-values, never
lowers them (the largest counts), so that at such an FDR the called are among those called without
it, with the same q as if all had been steered. The null is a sample of the dictionary's shared
features, whose directions both models use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import polars as pl

from analyze.config import AnalyzeConfig
from analyze.verdict.evidence import STEERING
from analyze.verdict.judge import LEVELS, judge
from analyze.verdict.nulls import null_lines
from pipeline.errors import ConfigError

Steer = Callable[[Sequence[int]], pl.DataFrame]
"""Lines (feature, steering_agreement, ...) of the features that are asked for, as far as known."""
SAMPLE_SEED = 0
MATCHED = 16


def with_steering(
    evidence: pl.DataFrame,
    nulls: Mapping[str, pl.DataFrame],
    config: AnalyzeConfig,
    steer: Steer,
) -> tuple[pl.DataFrame, pl.DataFrame] | None:
    """The evidence with the agreements of the called and of a sample of the shared; their null.

    None where nothing is called or shared, so that there is nothing to tell apart. Raises
    ConfigError if steering is to decide and nothing is shared.
    """
    before = judge(evidence, nulls, without_steering(config))
    called = before.filter(pl.col("q") <= max(config.fdr, *LEVELS))["feature"].to_list()
    shared = shared_sample(evidence, config.steered_shared)
    if called and not shared and STEERING in config.evidence:
        raise ConfigError(
            f"analyze.evidence: {STEERING} has no null: no feature of this dictionary is surely "
            "shared (analyze.norm_shared); leave it out"
        )
    if not called or not shared:
        return None
    found = steer([*called, *shared]).select("feature", STEERING)
    steered = evidence.drop(STEERING).join(found, on="feature", how="left")
    return steered, _null(steered, shared)


def without_steering(config: AnalyzeConfig) -> AnalyzeConfig:
    """The same, deciding by the other evidence."""
    rest = [name for name in config.evidence if name != STEERING]
    return config.model_copy(update={"evidence": rest})


def shared_sample(evidence: pl.DataFrame, count: int) -> list[int]:
    """At most `count` features of each model by its larger decoder norm, that both models have.

    A larger sample of the same dictionary holds a smaller one.
    """
    chosen: list[int] = []
    for _, part in (
        evidence.filter("shared").sort("feature").group_by("claimed_for", maintain_order=True)
    ):
        features = part["feature"].to_numpy()
        order = np.random.default_rng(SAMPLE_SEED).permutation(len(features))
        chosen += sorted(features[order[:count]].tolist())
    return chosen


def _null(evidence: pl.DataFrame, shared: Sequence[int]) -> pl.DataFrame:
    """Lines of a null that tells of nothing but steering."""
    found = evidence.filter(pl.col("feature").is_in(list(shared)) & pl.col(STEERING).is_not_null())
    lines = null_lines(found, {STEERING: pl.col(STEERING)})
    return lines.with_columns(found["claimed_for"])


def steering_summary(judged: pl.DataFrame, null: pl.DataFrame | None) -> list[dict[str, object]]:
    """Per model: how the agreements of the steered candidates lie to those of shared features.

    The candidates are those that the other evidence calls. lower: share of the pairs of one and a
    shared feature that fires about as often (the MATCHED nearest) in which the candidate's is the
    smaller, 1/2 if steering tells nothing; a verdict on the set, where one feature's p-value cannot
    be small.
    """
    lines: list[dict[str, object]] = []
    if null is None:
        return lines
    steered = judged.filter(pl.col(STEERING).is_not_null())
    for model in sorted(set(steered["claimed_for"]) & set(null["claimed_for"])):
        own, shared = (t.filter(pl.col("claimed_for") == model) for t in (steered, null))
        lines.append(
            {
                "model": model,
                "steered": own.height,
                "median": own[STEERING].median(),
                "shared": shared.height,
                "median shared": shared[STEERING].median(),
                "lower": _lower(own, shared),
            }
        )
    return lines


def _lower(own: pl.DataFrame, shared: pl.DataFrame) -> float:
    places, shared_places = (np.log(table["fires"].to_numpy()) for table in (own, shared))
    apart = np.abs(places[:, None] - shared_places)
    near = np.argsort(apart, axis=1, kind="stable")[:, :MATCHED]
    values, others = own[STEERING].to_numpy()[:, None], shared[STEERING].to_numpy()[near]
    return float((values < others).mean() + (values == others).mean() / 2)
