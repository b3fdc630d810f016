"""Density against largest activation of every feature that fires, by group."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import plotly.graph_objects as go
import polars as pl
from matplotlib.figure import Figure

from analyze.plots import colors
from analyze.statistics.firing import Firing
from train.dictionary.crosscoder import Crosscoder

matplotlib.use("Agg")
MOST = 20_000  # points; of more features as many are drawn at random
DENSITY, LARGEST = "share of rows on which it fires", "largest activation"


def points(dictionary: Crosscoder, firing: Firing) -> pl.DataFrame:
    """feature, group, density, largest, of features that fire; a sample where they are many."""
    table = pl.DataFrame(
        {
            "group": dictionary.partition.group_of_feature(),
            "density": firing.density,
            "largest": firing.largest,
        }
    ).with_row_index("feature")
    alive = table.filter(pl.col("density") > 0)
    return alive.sample(MOST, seed=0).sort("feature") if len(alive) > MOST else alive


def density_png(table: pl.DataFrame, models: tuple[str, str], path: Path) -> None:
    """The points, both axes logarithmic."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, shade, part in _groups(table, models):
        label = f"{name} ({len(part)})"
        axes.scatter(part["density"], part["largest"], s=6, alpha=0.6, color=shade, label=label)
    axes.set(xscale="log", yscale="log", xlabel=DENSITY, ylabel=LARGEST)
    figure.legend(title="group", loc="outside right upper")
    figure.savefig(path, dpi=150)


def density_figure(table: pl.DataFrame, models: tuple[str, str]) -> go.Figure:
    """The same, interactive: points name their feature."""
    figure = go.Figure()
    for name, shade, part in _groups(table, models):
        figure.add_scattergl(
            x=part["density"],
            y=part["largest"],
            text=[f"feature {feature}" for feature in part["feature"]],
            mode="markers",
            marker={"color": shade, "size": 5, "opacity": 0.6},
            name=f"{name} ({len(part)})",
        )
    return figure.update_layout(
        template="plotly_white",
        height=460,
        legend_title_text="group",
        xaxis={"title": DENSITY, "type": "log"},
        yaxis={"title": LARGEST, "type": "log"},
    )


def _groups(table: pl.DataFrame, models: tuple[str, str]) -> list[tuple[str, str, pl.DataFrame]]:
    """Name, colour and points of each group, shared ones first: they are many, and lie below."""
    names = table["group"].unique(maintain_order=True).to_list()
    found = [
        (name, shade, table.filter(pl.col("group") == name))
        for name, shade in zip(names, colors(names, *models), strict=True)
    ]
    return sorted(found, key=lambda group: group[0] in models)
