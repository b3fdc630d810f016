"""Pictures of the toy benchmark: recall and false positives over features, and learning curves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import matplotlib
import plotly.graph_objects as go
import polars as pl
from matplotlib.figure import Figure
from plotly.subplots import make_subplots

matplotlib.use("Agg")
COLORS = {"batch_topk_crosscoder": "#8c8c8c", "dsf": "#1b6ca8", "dfc": "#d95f02"}
OTHER = "#2a9d5c"


@dataclass(frozen=True)
class Line:
    """Means with their standard deviations over seeds, both (points,), of one recipe."""

    panel: int
    name: str
    color: str
    dashed: bool
    x: list[float]
    y: list[float]
    spread: list[float]


def lines_of(summary: pl.DataFrame, curves: pl.DataFrame, features: int) -> list[Line]:
    """Everything that is drawn; learning curves are those of dictionaries of this size."""
    lines = []
    for recipe in summary["recipe"].unique(maintain_order=True).to_list():
        own = summary.filter(pl.col("recipe") == recipe)
        for panel, column, name, dashed in (
            (0, "recall_exclusive", recipe, False),
            (0, "recall_shared", f"{recipe}, shared concepts", True),
            (1, "norm_fpr", f"{recipe}, by norm", False),
            (1, "group_fpr", f"{recipe}, by group", True),
        ):
            lines.append(_line(panel, name, recipe, dashed, own, "features", column))
        curve = curves.filter((pl.col("recipe") == recipe) & (pl.col("features") == features))
        lines.append(_line(2, recipe, recipe, False, curve, "step", "exclusive"))
    return [line for line in lines if line.x]


def _line(
    panel: int, name: str, recipe: str, dashed: bool, table: pl.DataFrame, x: str, y: str
) -> Line:
    there = table.filter(pl.col(y).is_not_null())
    spread = there[f"{y}_std"].fill_null(0.0).to_list()
    color = COLORS.get(recipe, OTHER)
    return Line(panel, name, color, dashed, there[x].to_list(), there[y].to_list(), spread)


def _titles(features: int, concepts: int) -> list[tuple[str, str]]:
    return [
        ("recall, exclusive concepts (dashed: shared)", f"features ({concepts:,} concepts)"),
        ("false-positive rate of claims (dashed: by group)", f"features ({concepts:,} concepts)"),
        (f"recall, exclusive concepts, {features:,} features", "steps"),
    ]


def draw(lines: list[Line], features: int, concepts: int, stem: Path) -> list[Path]:
    """Writes STEM.png and STEM.html."""
    png, html = stem.with_suffix(".png"), stem.with_suffix(".html")
    _png(lines, features, concepts, png)
    _interactive(lines, features, concepts).write_html(html, include_plotlyjs=True)
    return [png, html]


def _png(lines: list[Line], features: int, concepts: int, path: Path) -> None:
    figure = Figure(figsize=(13, 5.2), layout="constrained")
    panels = figure.subplots(1, 3)
    for line in lines:
        panels[line.panel].errorbar(
            line.x,
            line.y,
            yerr=line.spread,
            color=line.color,
            linestyle="--" if line.dashed else "-",
            marker="o",
            markersize=3,
            capsize=3,
            label=line.name,
        )
    for number, (panel, (title, axis)) in enumerate(
        zip(panels, _titles(features, concepts), strict=True)
    ):
        panel.set(title=title, xlabel=axis, ylim=(-0.03, 1.03))
        if number < 2:
            panel.set_xscale("log", base=2)
            panel.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        panel.grid(alpha=0.3)
        if any(line.panel == number for line in lines):
            panel.legend(fontsize=7, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.14))
    figure.savefig(path, dpi=150)


def _interactive(lines: list[Line], features: int, concepts: int) -> go.Figure:
    titles = _titles(features, concepts)
    figure = make_subplots(1, 3, subplot_titles=[title for title, _ in titles])
    for line in lines:
        figure.add_trace(
            go.Scatter(
                x=line.x,
                y=line.y,
                error_y={"type": "data", "array": line.spread},
                mode="lines+markers",
                line={"color": line.color, "dash": "dash" if line.dashed else "solid"},
                name=line.name if line.panel < 2 else f"{line.name}, by steps",
            ),
            1,
            line.panel + 1,
        )
    for column, (_, axis) in enumerate(titles, 1):
        kind = "log" if column < 3 else "linear"
        figure.update_xaxes(title_text=axis, type=kind, row=1, col=column)
        figure.update_yaxes(range=[-0.03, 1.03], row=1, col=column)
    return figure.update_layout(template="plotly_white", height=480)
