"""Pictures of latent scaling: nu against nu for equal widths, else lengths beside the null."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import plotly.graph_objects as go
import polars as pl
from matplotlib.figure import Figure

from analyze.plots import colors
from analyze.scaling_table import NU_EPS, NU_R

matplotlib.use("Agg")
EDGES = [number / 20 for number in range(31)]  # of |v| / |d|; longer ones count in the last bin
NU_RANGE = (-0.25, 1.5)


def scaling_png(table: pl.DataFrame, models: tuple[str, str], path: Path) -> None:
    """A panel of nu_eps and nu_r, or of direction lengths, for whichever there are."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    groups = _groups(table)
    shades = colors([name for name, _ in groups], *models)
    if table["nu_eps"].is_not_null().any():
        for (name, part), shade in zip(groups, shades, strict=True):
            axes.scatter(part["nu_eps"], part["nu_r"], s=8, alpha=0.6, color=shade, label=name)
        axes.axvline(NU_EPS, color="#888888", lw=0.8)
        axes.axhline(NU_R, color="#888888", lw=0.8)
        axes.set(xlim=NU_RANGE, ylim=NU_RANGE)
        axes.set_xlabel("ν of the residual (high: complete shrinkage)")
        axes.set_ylabel("ν of the reconstruction (high: latent decoupling)")
    else:
        for (name, part), shade in zip(groups, shades, strict=True):
            axes.hist(_clipped(part, "direction"), EDGES, histtype="step", color=shade, label=name)
        null = _clipped(table, "null_direction")
        axes.hist(null, EDGES, histtype="stepfilled", color="#dddddd", label="null", zorder=0)
        axes.set_xlabel("|v| / |d|: best direction in the other model, relative to the own one")
        axes.set_ylabel("features")
        axes.set_yscale("log")  # exclusive features are few
    figure.legend(title="group", loc="outside right upper")
    figure.savefig(path, dpi=150)


def scaling_figure(table: pl.DataFrame, models: tuple[str, str]) -> go.Figure:
    """The same, interactive: points name their feature."""
    groups = _groups(table)
    shades = colors([name for name, _ in groups], *models)
    figure = go.Figure()
    scatter = table["nu_eps"].is_not_null().any()
    for (name, part), shade in zip(groups, shades, strict=True):
        if scatter:
            figure.add_scatter(
                x=part["nu_eps"],
                y=part["nu_r"],
                text=[f"feature {feature}" for feature in part["feature"]],
                mode="markers",
                marker={"color": shade, "size": 5},
                name=name,
            )
        else:
            figure.add_histogram(
                x=_clipped(part, "direction"), name=name, marker_color=shade, xbins=_bins()
            )
    if scatter:
        figure.add_vline(NU_EPS, line_width=1, line_color="#888888")
        figure.add_hline(NU_R, line_width=1, line_color="#888888")
        titles = ("ν of the residual (shrinkage)", "ν of the reconstruction (decoupling)")
    else:
        null = _clipped(table, "null_direction")
        figure.add_histogram(x=null, name="null", marker_color="#cccccc", xbins=_bins())
        titles = ("|v| / |d|: best direction in the other model, relative to the own", "features")
        figure.update_yaxes(type="log")
    figure.update_layout(
        barmode="overlay",
        template="plotly_white",
        height=460,
        legend_title_text="group",
        xaxis={"title": titles[0], "range": list(NU_RANGE) if scatter else None},
        yaxis={"title": titles[1], "range": list(NU_RANGE) if scatter else None},
    )
    return figure.update_traces(opacity=0.7)


def _groups(table: pl.DataFrame) -> list[tuple[str, pl.DataFrame]]:
    """Features that fired, by group."""
    fired = table.filter(pl.col("beta_eps_own").is_not_null())
    names = fired["group"].unique(maintain_order=True).to_list()
    return [(name, fired.filter(pl.col("group") == name)) for name in names]


def _clipped(table: pl.DataFrame, column: str) -> list[float]:
    return table[column].drop_nulls().clip(0, EDGES[-1] - 1e-9).to_list()


def _bins() -> dict[str, float]:
    return {"start": EDGES[0], "end": EDGES[-1], "size": EDGES[1] - EDGES[0]}
