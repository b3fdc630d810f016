"""The verdict as a picture: how well features are read from the other model, beside the nulls."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib
import plotly.graph_objects as go
import polars as pl
from matplotlib.figure import Figure

from analyze.plots import colors
from analyze.verdict.judge import EXCLUSIVE

matplotlib.use("Agg")
WIDTH = 0.05
EDGES = [number * WIDTH for number in range(31)]  # larger ratios count in the last bin
AXIS = "readout ratio: told by the other model's activations, relative to the own ones"
NULLS = {"copy": "#bbbbbb", "shared": "#8fa876"}


def verdict_png(
    judged: pl.DataFrame, nulls: Mapping[str, pl.DataFrame], models: tuple[str, str], path: Path
) -> None:
    """Candidates per model, those called filled, above the nulls' densities."""
    figure = Figure(figsize=(8, 5.5), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    for model, shade in zip(models, colors(list(models), *models), strict=True):
        own = judged.filter(pl.col("claimed_for") == model)
        called = own.filter(pl.col("verdict") == EXCLUSIVE)
        label = f"{model}: {own.height} candidates"
        above.hist(_ratios(own), EDGES, histtype="step", color=shade, label=label)
        label = f"{model}: {called.height} exclusive"
        above.hist(_ratios(called), EDGES, color=shade, alpha=0.55, label=label)
    for name, null in nulls.items():
        values = _ratios(null)
        if not values:  # no shared features, or a null that tells of steering alone
            continue
        label = f"null {name} ({len(values)})"
        below.hist(values, EDGES, density=True, color=NULLS[name], alpha=0.7, label=label)
    above.set_ylabel("features")
    below.set_ylabel("density")
    below.set_xlabel(AXIS)
    for axes in (above, below):
        axes.legend(fontsize=8, frameon=False)
    figure.savefig(path, dpi=150)


def verdict_figure(
    judged: pl.DataFrame, nulls: Mapping[str, pl.DataFrame], models: tuple[str, str]
) -> go.Figure:
    """The same, interactive."""
    bins = {"start": 0, "end": EDGES[-1], "size": WIDTH}
    figure = go.Figure()
    for model, shade in zip(models, colors(list(models), *models), strict=True):
        own = judged.filter(pl.col("claimed_for") == model)
        called = own.filter(pl.col("verdict") == EXCLUSIVE)
        for part, name, opacity in ((own, "candidates", 0.3), (called, "exclusive", 0.9)):
            figure.add_histogram(
                x=_ratios(part),
                xbins=bins,
                name=f"{model}: {part.height} {name}",
                marker_color=shade,
                opacity=opacity,
            )
    for name, null in nulls.items():
        values = _ratios(null)
        if not values:
            continue
        figure.add_histogram(
            x=values,
            xbins=bins,
            histnorm="probability density",
            name=f"null {name} ({len(values)})",
            marker_color=NULLS[name],
            yaxis="y2",
            opacity=0.6,
        )
    return figure.update_layout(
        barmode="overlay",
        template="plotly_white",
        height=520,
        xaxis={"title": AXIS, "range": [0, EDGES[-1]], "anchor": "y2"},
        yaxis={"title": "features", "domain": [0.45, 1]},
        yaxis2={"title": "density", "domain": [0, 0.38]},
    )


def _ratios(table: pl.DataFrame) -> list[float]:
    return table["readout_ratio"].drop_nulls().clip(0, EDGES[-1] - 1e-9).to_list()
