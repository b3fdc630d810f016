"""The table `explanations`: what was found of each feature, kept from run to run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict

import polars as pl

from analyze.export.explain import Explained
from analyze.tables import Tables

NAME = "explanations"
SCHEMA = {
    **{"feature": pl.Int64, "explanation": pl.String, "model": pl.String, "detection": pl.Float64},
    **{"sensitivity": pl.Float64, "specificity": pl.Float64, "shown": pl.Int64},
    **{"held_back": pl.Int64, "silent": pl.Int64, "error": pl.String},
}


def read_explanations(tables: Tables) -> dict[int, Explained]:
    """What is known, by feature; nothing if there is no such table, or one of other columns."""
    table = tables.read(NAME)
    if table is None or dict(table.schema) != SCHEMA:
        return {}
    return {line["feature"]: Explained(**line) for line in table.iter_rows(named=True)}


def explanations_table(found: Iterable[Explained]) -> pl.DataFrame:
    """A line per feature, in order."""
    lines = sorted(found, key=lambda one: one.feature)
    return pl.DataFrame([asdict(one) for one in lines], SCHEMA, orient="row")
