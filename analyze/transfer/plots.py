"""The histogram of readout ratios by group, as a PNG and as an interactive page."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import plotly.graph_objects as go
import polars as pl
from matplotlib.figure import Figure

from analyze.plots import colors

matplotlib.use("Agg")
BIN, LAST = 0.05, 1.25  # what lies outside counts in the first or last bin
EDGES = [round(number * BIN, 2) for number in range(round(LAST / BIN) + 1)]
TITLE = "R² of the activation read from the other model / from its own"


def transfer_png(table: pl.DataFrame, models: tuple[str, str], path: Path) -> None:
    """One outline per group, logarithmic counts: exclusive features are few."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    groups = _groups(table)
    shades = colors([name for name, _ in groups], *models)
    for (name, ratios), shade in zip(groups, shades, strict=True):
        label = f"{name} ({len(ratios)})"
        axes.hist(ratios, EDGES, histtype="step", color=shade, label=label, log=True)
    axes.set_xlabel(TITLE)
    axes.set_ylabel("features")
    figure.legend(title="group", loc="outside right upper")
    figure.savefig(path, dpi=150)


def transfer_figure(table: pl.DataFrame, models: tuple[str, str]) -> go.Figure:
    """The same, interactive."""
    groups = _groups(table)
    shades = colors([name for name, _ in groups], *models)
    figure = go.Figure(
        [
            go.Histogram(
                x=ratios,
                name=f"{name} ({len(ratios)})",
                xbins={"start": 0, "end": LAST, "size": BIN},
                marker_color=shade,
            )
            for (name, ratios), shade in zip(groups, shades, strict=True)
        ]
    )
    figure.update_layout(
        barmode="overlay",
        template="plotly_white",
        height=420,
        legend_title_text="group",
        xaxis={"title": TITLE, "range": [0, LAST]},
        yaxis={"title": "features", "type": "log"},
    )
    return figure.update_traces(opacity=0.7)


def _groups(table: pl.DataFrame) -> list[tuple[str, list[float]]]:
    """Ratios by group, a feature once, clipped to what is shown."""
    known = table.unique("feature", maintain_order=True).drop_nulls("readout_ratio")
    names = known["group"].unique(maintain_order=True).to_list()
    ratios = pl.col("readout_ratio").clip(0, LAST - 1e-9)
    return [
        (name, known.filter(pl.col("group") == name).select(ratios).to_series().to_list())
        for name in names
    ]
