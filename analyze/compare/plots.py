"""Pictures of a comparison: what became of each kind of finding, and how near the matches are."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import plotly.graph_objects as go
import polars as pl
from matplotlib.figure import Figure
from plotly.subplots import make_subplots

from analyze.compare.sides import RARE
from analyze.compare.table import NOTHING, Comparison, findings, kinds
from analyze.norms import OTHER, SHARED, only
from analyze.plots import FIRST, LINE, NEUTRAL, SECOND

matplotlib.use("Agg")
MOST_POINTS = 4000  # of a kind in the picture; shared features are many
FATES = "counterparts by {}"
X_TITLE, Y_TITLE = "cosine with the match", "correlation with the match"


def compare_png(comparison: Comparison, table: pl.DataFrame, path: Path) -> None:
    """Cosine and correlation of matches by direction; bars of what all matches are called."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    scatter, *bars = figure.subplots(1, 3, width_ratios=(1.2, 1, 1))
    for call, part in _points(comparison, table):
        x, y = part["other_cosine"].to_list(), part["other_correlation"].to_list()
        size = 4 if call == SHARED else 12
        scatter.scatter(x, y, s=size, alpha=0.6, color=_color(comparison, call), label=call)
    scatter.axvline(comparison.config.match_cosine, color=LINE, linewidth=0.8, linestyle="--")
    scatter.axhline(comparison.config.match_correlation, color=LINE, linewidth=0.8, linestyle="--")
    scatter.set(xlabel=X_TITLE, ylabel=Y_TITLE)
    scatter.legend(title="called")
    for axes, column, by in zip(bars, ("matched", "active_matched"), _BY, strict=True):
        left = [0.0] * len(findings(comparison.first))
        for kind, shares in _fates(comparison, table, column):
            axes.barh(_labels(comparison, table), shares, left=left, label=kind, height=0.7,
                      color=_color(comparison, kind))  # fmt: skip
            left = [start + share for start, share in zip(left, shares, strict=True)]
        axes.set(xlabel="share of those called so", title=FATES.format(by), xlim=(0, 1))
        axes.invert_yaxis()
        axes.set_yticks(axes.get_yticks(), axes.get_yticklabels() if axes is bars[0] else [])
    handles, labels = bars[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, title="the counterpart is called", loc="outside lower center", ncols=6
    )
    figure.savefig(path, dpi=150)


def compare_figure(comparison: Comparison, table: pl.DataFrame) -> go.Figure:
    """The same, interactive: points name both features."""
    titles = ("matches by direction", *(FATES.format(by) for by in _BY))
    figure = make_subplots(1, 3, subplot_titles=titles, column_widths=[0.4, 0.3, 0.3])
    for call, part in _points(comparison, table):
        figure.add_scatter(
            x=part["other_cosine"],
            y=part["other_correlation"],
            text=_words(part),
            hoverinfo="text",
            mode="markers",
            marker={"color": _color(comparison, call), "size": 5, "opacity": 0.6},
            name=call,
            row=1,
            col=1,
        )
    line = {"line_dash": "dash", "line_width": 1, "line_color": LINE, "row": 1, "col": 1}
    figure.add_vline(comparison.config.match_cosine, **line)
    figure.add_hline(comparison.config.match_correlation, **line)
    for col, column in ((2, "matched"), (3, "active_matched")):
        for kind, shares in _fates(comparison, table, column):
            figure.add_bar(
                x=shares,
                y=_labels(comparison, table),
                orientation="h",
                marker_color=_color(comparison, kind),
                name=f"match: {kind}",
                showlegend=col == 2,
                legendgroup=kind,
                row=1,
                col=col,
            )
        figure.update_xaxes(title="share of those called so", range=[0, 1], row=1, col=col)
        figure.update_yaxes(autorange="reversed", showticklabels=col == 2, row=1, col=col)
    figure.update_xaxes(title=X_TITLE, row=1, col=1)
    figure.update_yaxes(title=Y_TITLE, row=1, col=1)
    margin = {"l": 60, "r": 20, "t": 50, "b": 50}
    return figure.update_layout(barmode="stack", template="plotly_white", height=440, margin=margin)


_BY = ("direction", "activity")


def _points(comparison: Comparison, table: pl.DataFrame) -> list[tuple[str, pl.DataFrame]]:
    """Lines with a match by kind of finding, shared ones first; every n-th where they are many."""
    parts = []
    for call in reversed(findings(comparison.first)):
        part = table.filter((pl.col("called") == call) & pl.col("other_feature").is_not_null())
        parts.append((call, part.gather_every(1 + len(part) // MOST_POINTS)))
    return parts


def _words(part: pl.DataFrame) -> list[str]:
    columns = ("feature", "called", "other_feature", "other_called")
    return [
        f"{own} ({call}) → {match} ({match_call})"
        for own, call, match, match_call in part.select(columns).iter_rows()
    ]


def _fates(
    comparison: Comparison, table: pl.DataFrame, column: str
) -> list[tuple[str, list[float]]]:
    """Per kind of match its share among the findings of every call."""
    met = [table.filter(pl.col("called") == call)[column] for call in findings(comparison.first)]
    return [
        (kind, [int((one == kind).sum()) / max(1, len(one)) for one in met])
        for kind in kinds(comparison)
    ]


def _labels(comparison: Comparison, table: pl.DataFrame) -> list[str]:
    return [f"{call} ({(table['called'] == call).sum()})" for call in findings(comparison.first)]


def _color(comparison: Comparison, kind: str) -> str:
    first, second = comparison.first.models
    known = {only(first): FIRST, only(second): SECOND, SHARED: NEUTRAL[0]}
    return known.get(kind, {OTHER: "#c9c9c9", RARE: "#e2e2e2", NOTHING: "#f7f0d0"}.get(kind, LINE))
