"""What steering did, as tables: a line per step and alpha, and the tokens that it moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from analyze.causal.steer import SETS, Curve
from harvest.models.hooked import HookedModel

STEER_COLUMNS = {
    "feature": pl.Int64,
    "claimed_for": pl.String,
    "steered": pl.String,
    "hookpoint": pl.String,
    "mapped": pl.Boolean,
    "steerable": pl.Boolean,
    "step": pl.Float64,
    "alpha": pl.Float64,
    "kl_firing": pl.Float64,
    "kl_silent": pl.Float64,
    "kl_random_firing": pl.Float64,
    "kl_random_silent": pl.Float64,
    "top1_changed_firing": pl.Float64,
    "top1_changed_silent": pl.Float64,
    "positions_firing": pl.Int64,
    "positions_silent": pl.Int64,
}
TOKEN_COLUMNS = {
    "feature": pl.Int64,
    "steered": pl.String,
    "mapped": pl.Boolean,
    "alpha": pl.Float64,
    "promoted": pl.Boolean,
    "rank": pl.Int64,
    "token": pl.String,
    "log_change": pl.Float64,
    "probability_clean": pl.Float64,
    "probability_steered": pl.Float64,
}


def steer_table(curves: Sequence[Curve]) -> pl.DataFrame:
    """STEER_COLUMNS, one line per step and alpha.

    steerable: whether there is a direction; step: its length at alpha 1 over the median norm of
    the activations; kl_random_*: of random directions of that length, null at alpha 0. All
    measures are null over no positions.
    """
    lines = []
    for curve in curves:
        step = curve.step
        known = {
            "feature": step.feature,
            "claimed_for": step.claimed_for,
            "steered": step.steered,
            "hookpoint": step.hookpoint,
            "mapped": step.mapped,
            "steerable": step.vector_D is not None,
            "step": step.relative,
        }
        for number, alpha in enumerate(curve.alphas):
            measured: dict[str, float | int | None] = {"alpha": alpha}
            for name in SETS:
                effect = curve.of[name][number]
                measured[f"kl_{name}"] = effect.kl
                measured[f"kl_random_{name}"] = curve.random[name][number]
                measured[f"top1_changed_{name}"] = effect.top1_changed
                measured[f"positions_{name}"] = effect.positions
            lines.append({**known, **measured})
    return pl.DataFrame(lines, schema=STEER_COLUMNS)


def tokens_table(curves: Sequence[Curve], models: Mapping[str, HookedModel]) -> pl.DataFrame:
    """TOKEN_COLUMNS, a line per step, alpha other than 0, and token that was kept."""
    lines = [
        {
            "feature": curve.step.feature,
            "steered": curve.step.steered,
            "mapped": curve.step.mapped,
            "alpha": alpha,
            "promoted": change.promoted,
            "rank": change.rank,
            "token": models[curve.step.steered].tokenizer.decode([change.token]),
            "log_change": change.log_change,
            "probability_clean": change.probability_clean,
            "probability_steered": change.probability_changed,
        }
        for curve in curves
        for alpha, effect in zip(curve.alphas, curve.of["firing"], strict=True)
        if alpha
        for change in effect.tokens
    ]
    return pl.DataFrame(lines, schema=TOKEN_COLUMNS)


def shown_alpha(alphas: Sequence[float]) -> float:
    """The alpha to show where there is room for one: that nearest to 1."""
    return min(alphas, key=lambda alpha: (abs(alpha - 1), -alpha))


def steer_summary(table: pl.DataFrame) -> pl.DataFrame:
    """The lines of one alpha, `shown_alpha`: what there is to say of each step in a line."""
    if table.is_empty():
        return table
    return table.filter(pl.col("alpha") == shown_alpha(table["alpha"].unique().to_list()))


def brief(summary: pl.DataFrame) -> pl.DataFrame:
    """The summary in columns that a terminal has room for."""
    how = (
        pl.when("mapped")
        .then(pl.lit(" mapped"))
        .when("steerable")
        .then(pl.lit(""))
        .otherwise(pl.lit(" (none)"))
    )
    return summary.select(
        "feature",
        pl.col("claimed_for").alias("of"),
        (pl.col("steered") + how).alias("steered"),
        pl.col("kl_firing").alias("firing"),
        pl.col("kl_random_firing").alias("rand"),
        pl.col("kl_silent").alias("silent"),
        pl.col("kl_random_silent").alias("rand "),
        pl.col("positions_firing").alias("rows"),
    )
