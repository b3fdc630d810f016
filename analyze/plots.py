"""The histogram of relative decoder norms, as a PNG and as an interactive page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import plotly.graph_objects as go
import polars as pl
from matplotlib.figure import Figure

matplotlib.use("Agg")

BIN_WIDTH, LINE = 0.02, "#555555"
FIRST, SECOND, NEUTRAL = "#d95f02", "#1b6ca8", ["#8c8c8c", "#2a9d5c", "#9b4f96", "#c2a500"]


def _alive_by_group(table: pl.DataFrame) -> list[tuple[str, list[float]]]:
    alive = table.filter((pl.col("fires") > 0) & pl.col("relative_decoder_norm").is_not_null())
    groups = table["group"].unique(maintain_order=True).to_list()
    return [
        (name, alive.filter(pl.col("group") == name)["relative_decoder_norm"].to_list())
        for name in groups
    ]


def colors(names: list[str], first: str | None, second: str | None) -> list[str]:
    """One colour per name: the first model's, the second's, neutral ones for everything else."""
    rest = (name for name in names if name not in (first, second))
    neutral = {name: NEUTRAL[number % len(NEUTRAL)] for number, name in enumerate(rest)}
    return [
        FIRST if name == first else SECOND if name == second else neutral[name] for name in names
    ]


def axis_title(models: tuple[str, str]) -> str:
    """What the horizontal axis means."""
    return f"relative decoder norm (0: {models[1]} alone, 1: {models[0]} alone)"


def tag_edges(exclusive: float, shared: float) -> list[float]:
    """Where, along R, features begin to be called exclusive, and shared."""
    return [1 - exclusive, 1 - shared, shared, exclusive]


def histogram_png(
    table: pl.DataFrame, models: tuple[str, str], path: Path, edges: Sequence[float] = ()
) -> None:
    """Stacked histogram by partition group, alive features only, logarithmic counts.

    edges: values of R to draw a line at.
    """
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    groups = _alive_by_group(table)
    axes.hist(
        [values for _, values in groups],
        bins=[number * BIN_WIDTH for number in range(round(1 / BIN_WIDTH) + 1)],
        stacked=True,
        label=[f"{name} ({len(values)})" for name, values in groups],
        color=colors([name for name, _ in groups], *models),
        log=True,
    )
    for edge in edges:
        axes.axvline(edge, color=LINE, linewidth=0.8, linestyle="--")
    axes.set_xlabel(axis_title(models))
    axes.set_ylabel("alive features")
    figure.legend(title="group", loc="outside right upper")
    figure.savefig(path, dpi=150)


def histogram_figure(
    table: pl.DataFrame, models: tuple[str, str], edges: Sequence[float] = ()
) -> go.Figure:
    """The same histogram, interactive."""
    groups = _alive_by_group(table)
    shades = colors([name for name, _ in groups], *models)
    figure = go.Figure(
        [
            go.Histogram(
                x=values,
                name=f"{name} ({len(values)})",
                xbins={"start": 0, "end": 1 + BIN_WIDTH, "size": BIN_WIDTH},
                marker_color=shade,
            )
            for (name, values), shade in zip(groups, shades, strict=True)
        ]
    )
    for edge in edges:
        figure.add_vline(edge, line_width=1, line_dash="dash", line_color=LINE)
    figure.update_layout(
        barmode="stack",
        template="plotly_white",
        height=380,
        margin={"l": 60, "r": 20, "t": 20, "b": 50},
        legend_title_text="group",
        xaxis_title=axis_title(models),
        yaxis={"title": "alive features", "type": "log"},
    )
    return figure
