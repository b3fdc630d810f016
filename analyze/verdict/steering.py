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
from analyze.verdict.judge import EXCLUSIVE, LEVELS, judge
from analyze.verdict.nulls import null_lines

Steer = Callable[[Sequence[int]], pl.DataFrame]
"""Lines (feature, steering_agreement, ...) of the features that are asked for, as far as known."""
SAMPLE_SEED = 0


def with_steering(
    evidence: pl.DataFrame,
    nulls: Mapping[str, pl.DataFrame],
    config: AnalyzeConfig,
    steer: Steer,
) -> tuple[pl.DataFrame, pl.DataFrame] | None:
    """The evidence with the agreements of the called and of a sample of the shared; their null.

    None where nothing is called, so that there is nothing to steer with.
    """
    before = judge(evidence, nulls, without_steering(config))
    called = before.filter(pl.col("q") <= max(config.fdr, *LEVELS))["feature"].to_list()
    if not called:
        return None
    shared = shared_sample(evidence, config.steered_shared)
    found = steer([*called, *shared]).select("feature", STEERING)
    steered = evidence.drop(STEERING).join(found, on="feature", how="left")
    return steered, _null(steered, shared)


def without_steering(config: AnalyzeConfig) -> AnalyzeConfig:
    """The same, deciding by the other evidence."""
    rest = [name for name in config.evidence if name != STEERING]
    return config.model_copy(update={"evidence": rest})


def shared_sample(evidence: pl.DataFrame, count: int) -> list[int]:
    """At most `count` features of each model by its larger decoder norm, that both models have."""
    generator = np.random.default_rng(SAMPLE_SEED)
    chosen: list[int] = []
    for _, part in (
        evidence.filter("shared").sort("feature").group_by("claimed_for", maintain_order=True)
    ):
        features = part["feature"].to_numpy()
        picked = generator.choice(features, min(count, len(features)), replace=False)
        chosen += sorted(picked.tolist())
    return chosen


def _null(evidence: pl.DataFrame, shared: Sequence[int]) -> pl.DataFrame:
    """Lines of a null that tells of nothing but steering."""
    found = evidence.filter(pl.col("feature").is_in(list(shared)) & pl.col(STEERING).is_not_null())
    lines = null_lines(found, {STEERING: pl.col(STEERING)})
    return lines.with_columns(found["claimed_for"])


def steering_summary(judged: pl.DataFrame, null: pl.DataFrame | None) -> list[dict[str, object]]:
    """Per model: how the agreements of its exclusive features lie to those of shared ones.

    lower: share of the pairs of an exclusive and a shared feature in which the exclusive one's is
    the smaller (1/2 if steering tells nothing); a verdict on the set, where one feature's p-value
    cannot be small.
    """
    lines: list[dict[str, object]] = []
    if null is None:
        return lines
    called = judged.filter((pl.col("verdict") == EXCLUSIVE) & pl.col(STEERING).is_not_null())
    for model in sorted(set(called["claimed_for"]) & set(null["claimed_for"])):
        own, shared = (
            table.filter(pl.col("claimed_for") == model)[STEERING].to_numpy()
            for table in (called, null)
        )
        below = (own[:, None] < shared).mean() + (own[:, None] == shared).mean() / 2
        lines.append(
            {
                "model": model,
                "exclusive": len(own),
                "median": float(np.median(own)),
                "shared": len(shared),
                "median shared": float(np.median(shared)),
                "lower": float(below),
            }
        )
    return lines
