"""Which features come first where not all can be asked for."""

from __future__ import annotations

import polars as pl

from analyze.export.chosen import Features
from analyze.tables import Tables


def in_order(tables: Tables, features: Features) -> list[int]:
    """Those with a verdict of exclusive first, by q; then by summed activation; then by number."""
    found = pl.DataFrame({"feature": features.tolist()}, {"feature": pl.Int64})
    by: list[pl.Expr] = []
    verdicts = tables.read("exclusivity")
    if verdicts is not None and {"verdict", "q"} <= set(verdicts.columns):
        wanted = verdicts.select(
            pl.col("feature").cast(pl.Int64),
            exclusive=pl.col("verdict") == "exclusive",
            q=pl.col("q").cast(pl.Float64),
        ).unique("feature", keep="first", maintain_order=True)
        found = found.join(wanted, "feature", how="left", maintain_order="left")
        by += [~pl.col("exclusive").fill_null(False), pl.col("q").fill_null(2.0)]
    norms = tables.read("norms")
    if norms is not None and "activation_sum" in norms.columns:
        sums = norms.select(pl.col("feature").cast(pl.Int64), "activation_sum")
        found = found.join(sums, "feature", how="left", maintain_order="left")
        by.append(-pl.col("activation_sum").fill_null(0.0))
    ordered = found.sort(*by, "feature") if by else found
    return ordered["feature"].to_list()
