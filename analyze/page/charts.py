"""What the page's charts draw: bins of the relative decoder norm, and evidence against it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from analyze.page.feature import FeatureLine
from analyze.plots import BIN_WIDTH
from analyze.tables import Tables

NEUTRAL_SHADES = 8
NULL_BINS = 40
# Field of a line, column of the tables, which table has it, title, what it tells.
MEASURES = (
    (
        *("ratio", "readout_ratio", "transfer", "readout ratio (other model over own)"),
        "Low: the other model's activations do not say, linearly, when the feature fires.",
    ),
    (
        *("direction", "direction", "scaling", "best direction in the other model, |v| / |d|"),
        "Low: nothing in what the other model's reconstruction leaves over moves with the feature. "
        "That tells of exclusive groups; what both models see is reconstructed in the other, too.",
    ),
)


@dataclass(frozen=True)
class Group:
    """Counts per bin of the alive features of one group; shade: its colour's name."""

    name: str
    shade: str
    counts: list[int]


@dataclass(frozen=True)
class Norms:
    """Bins between 0 and 1, from the second model alone to the first."""

    groups: list[Group]


@dataclass(frozen=True)
class Scatter:
    """A measure of evidence of the shown features, and a histogram to hold it against.

    name: the line's field that is drawn; top: where the axis ends, higher ones are drawn there;
    null: counts of bins between 0 and top, empty where nothing is known; null_name: what it is of,
    features that are not exclusive or chance, and null_title, in more words.
    """

    name: str
    title: str
    note: str
    top: float
    null: list[int]
    null_name: str
    null_title: str


def norms_chart(table: pl.DataFrame, models: tuple[str, str]) -> Norms:
    """Alive features by group and relative decoder norm."""
    edges = np.arange(round(1 / BIN_WIDTH) + 1) * BIN_WIDTH
    edges[-1] = 1.0
    alive = table.filter((pl.col("fires") > 0) & pl.col("relative_decoder_norm").is_not_null())
    names = table["group"].unique(maintain_order=True).to_list()
    groups = []
    for name, shade in zip(names, shades(names, *models), strict=True):
        norms = alive.filter(pl.col("group") == name)["relative_decoder_norm"].to_numpy()
        groups.append(Group(name, shade, np.histogram(norms, edges)[0].tolist()))
    return Norms(groups)


def scatter_charts(lines: list[FeatureLine], tables: Tables) -> list[Scatter]:
    """Of every measure that is known of a feature."""
    charts = []
    for field, column, source, title, note in MEASURES:
        values = [getattr(line, field) for line in lines if getattr(line, field) is not None]
        if values:
            top = round(max(1.0, min(2.0, float(np.quantile(values, 0.99)))), 2)
            charts.append(Scatter(field, title, note, top, *_null(tables, source, column, top)))
    return charts


def shades(names: list[str], first: str | None, second: str | None) -> list[str]:
    """One colour's name per name: a, b for the first and second model's, neutral ones else."""
    rest = [name for name in names if name not in (first, second)]
    neutral = {name: f"n{place % NEUTRAL_SHADES}" for place, name in enumerate(rest)}
    return ["a" if n == first else "b" if n == second else neutral[n] for n in names]


def _null(tables: Tables, source: str, column: str, top: float) -> tuple[list[int], str, str]:
    """Counts of what is not exclusive for sure; of rows exchanged, where there is no such null."""
    for table_name, at, name, title in (
        ("exclusivity_null", column, "null", "features that are not exclusive"),
        (source, f"null_{column}", "chance", "features, with the other model's rows exchanged"),
    ):
        table = tables.read(table_name)
        if table is not None and at in table.columns:
            values = table[at].drop_nulls().drop_nans().to_numpy()
            counts, _ = np.histogram(np.clip(values, 0, top), np.linspace(0, top, NULL_BINS + 1))
            if len(values):
                return counts.tolist(), name, f"{len(values):,} {title}"
    return [], "", ""
