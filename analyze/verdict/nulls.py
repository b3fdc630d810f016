"""What the evidence looks like of features that are not exclusive: the nulls of the p-values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from analyze.verdict.evidence import EVIDENCE, NORM_SHARE


def copy_null(
    tables: Sequence[pl.DataFrame], models: tuple[str, str], pairs: int = 1
) -> pl.DataFrame:
    """The null of dictionaries that were trained on a pair without differences.

    There every feature has a linear counterpart in the other model, so that all say how well one
    can be read from it; of direction and of norms only its candidates tell: the others are decoded
    there, and it is by their norms that candidates are chosen.
    The copy is blurred and the base is not: what is read from the worse of the two counts.
    Of steering it tells nothing: there is no model of which the copies are activations. Nor, of
    several `pairs` of hookpoints, of what is found out pair by pair: only all of them together are
    as good a copy as the other model is.
    """
    found = pl.concat(tables).filter(pl.col("readout_ratio").is_not_null() & (pl.col("fires") > 0))
    ratio = pl.col("readout_ratio")
    told = {
        "readout_ratio": pl.when(ratio > 1).then(1 / ratio).otherwise(ratio),
        "direction": pl.when("candidate").then("direction"),
        "mapped_norm": pl.col("mapped_norm"),
        NORM_SHARE: pl.when("candidate").then(NORM_SHARE),
    }
    if pairs > 1:
        told = {name: told[name] for name in ("readout_ratio", NORM_SHARE)}
    lines = null_lines(found, told)
    return pl.concat([lines.with_columns(claimed_for=pl.lit(model)) for model in models])


def shared_null(table: pl.DataFrame, models: tuple[str, str]) -> pl.DataFrame:
    """The dictionary's own shared features: what a linear counterpart looks like in this pair.

    Each is read from either model, and mapped from the one that has more of its norms. Of direction
    nothing follows, for both models decode them; nor of the norms, by which they were chosen.
    """
    found = table.filter(pl.col("shared") & (pl.col("readout_ratio") > 0))
    sides = []
    for model in models:
        ratio, own = pl.col("readout_ratio"), pl.col("claimed_for") == model
        told = {
            "readout_ratio": pl.when(own).then(ratio).otherwise(1 / ratio),
            "mapped_norm": pl.when(own).then("mapped_norm"),
        }
        sides.append(null_lines(found, told).with_columns(claimed_for=pl.lit(model)))
    return pl.concat(sides)


def null_lines(found: pl.DataFrame, told: Mapping[str, pl.Expr]) -> pl.DataFrame:
    """fires and all EVIDENCE, of which only `told` is known."""
    nothing = pl.lit(None, pl.Float64)
    return found.select("fires", **{name: told.get(name, nothing) for name in EVIDENCE})
