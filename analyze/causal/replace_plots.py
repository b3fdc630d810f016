"""How far each set of features takes the base model to the target: bars, as a PNG and as HTML."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import matplotlib
import plotly.graph_objects as go
import polars as pl
from matplotlib.figure import Figure

from analyze.causal.replace_run import TARGET
from analyze.plots import FIRST, SECOND

matplotlib.use("Agg")
GRAY = "#8c8c8c"
SHADES = {"best": SECOND, "worst": FIRST}
KL = "KL(target ‖ replaced), nats per position"


@dataclass(frozen=True)
class Bar:
    """A set: mean KL over its draws, lowest and highest of them."""

    name: str
    kl: float
    low: float
    high: float
    color: str


def bars(table: pl.DataFrame) -> list[Bar]:
    """In the table's order; random halves as one; the target, which is at 0, is left out."""
    found: dict[str, list[tuple[float, str]]] = {}
    for line in table.filter(pl.col("set") != TARGET).drop_nulls("kl").iter_rows(named=True):
        size = f" ({line['features']:,})" if line["features"] else ""
        by = f" half by {line['ranking']}" if line["set"] in SHADES else ""
        name = "random half" if line["set"] == "random" else f"{line['set']}{by}"
        found.setdefault(f"{name}{size}", []).append((line["kl"], line["set"]))
    return [
        Bar(
            name,
            sum(kl for kl, _ in lines) / len(lines),
            min(kl for kl, _ in lines),
            max(kl for kl, _ in lines),
            SHADES.get(lines[0][1], GRAY),
        )
        for name, lines in found.items()
    ]


def replace_png(table: pl.DataFrame, path: Path) -> None:
    """A bar per set; a line from the lowest to the highest random half."""
    shown = bars(table)
    figure = Figure(figsize=(7, 0.9 + 0.36 * len(shown)), layout="constrained")
    axes = figure.subplots()
    axes.barh(
        [bar.name for bar in shown], [bar.kl for bar in shown], color=[b.color for b in shown]
    )
    for bar in shown:
        if bar.high > bar.low:
            axes.plot([bar.low, bar.high], [bar.name, bar.name], color="black", lw=1.2)
    axes.invert_yaxis()
    axes.set_xlabel(KL)
    figure.savefig(path, dpi=150)


def replace_figure(table: pl.DataFrame) -> go.Figure:
    """The same, interactive."""
    shown = bars(table)
    figure = go.Figure(
        go.Bar(
            x=[bar.kl for bar in shown],
            y=[bar.name for bar in shown],
            orientation="h",
            marker_color=[bar.color for bar in shown],
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [bar.high - bar.kl for bar in shown],
                "arrayminus": [bar.kl - bar.low for bar in shown],
            },
        )
    )
    return figure.update_layout(
        template="plotly_white",
        height=140 + 34 * len(shown),
        xaxis_title=KL,
        yaxis={"autorange": "reversed"},
    )
