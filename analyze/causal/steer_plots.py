"""KL over alpha, where features fire and where not: panels as a PNG, one at a time as HTML."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import plotly.graph_objects as go
import polars as pl
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analyze.causal.steer import SETS
from analyze.plots import colors

matplotlib.use("Agg")
MOST_PANELS, COLUMNS = 12, 3
ALPHA, KL = "α: times the largest activation's step", "KL(clean ‖ steered), nats"
DASHES = {"firing": "solid", "silent": "dot"}
MATPLOTLIB_DASHES = {"firing": "-", "silent": ":"}


@dataclass(frozen=True)
class Line:
    """One curve: name, colour, at which positions, whether it is a random direction's."""

    name: str
    color: str
    where: str
    random: bool
    points: pl.DataFrame  # alpha, kl


def steer_png(table: pl.DataFrame, models: tuple[str, str], path: Path) -> None:
    """A panel per feature, at most MOST_PANELS of them."""
    features = _features(table)[:MOST_PANELS]
    across = max(1, min(COLUMNS, len(features)))
    down = max(1, -(-len(features) // across))
    figure = Figure(figsize=(2.6 + 3.2 * across, 0.9 + 2.6 * down), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False)
    for panel in panels.flat[len(features) :]:
        panel.set_visible(False)
    for panel, feature in zip(panels.flat, features, strict=False):
        for line in _lines(table, feature, models):
            panel.plot(
                line.points["alpha"],
                line.points["kl"],
                MATPLOTLIB_DASHES[line.where],
                color=line.color,
                lw=0.9 if line.random else 1.7,
                alpha=0.5 if line.random else 1.0,
                marker="" if line.random else ".",
            )
        panel.set_title(_title(table, feature), fontsize=9)
        panel.set_yscale("symlog", linthresh=0.01)
        panel.set_ylim(bottom=0)
    figure.supxlabel(ALPHA, fontsize=9)
    figure.supylabel(KL, fontsize=9)
    figure.legend(handles=_key(table, models), loc="outside right upper", fontsize=8)
    figure.savefig(path, dpi=150)


def _key(table: pl.DataFrame, models: tuple[str, str]) -> list[Line2D]:
    """What colours and strokes mean."""
    handles = []
    for model, mapped in sorted(table.select("steered", "mapped").unique().iter_rows()):
        (shade,) = colors([model], *models)
        shade = _lighter(shade) if mapped else shade
        handles.append(Line2D([], [], color=shade, label=f"{model} {'mapped' if mapped else ''}"))
    for where, dash in MATPLOTLIB_DASHES.items():
        handles.append(Line2D([], [], color="#444444", ls=dash, label=where))
    handles.append(Line2D([], [], color="#444444", lw=0.9, alpha=0.5, label="random"))
    return handles


def steer_figure(table: pl.DataFrame, models: tuple[str, str]) -> go.Figure:
    """The same, interactive, a feature at a time."""
    figure, features, owners = go.Figure(), _features(table), []
    for feature in features:
        for line in _lines(table, feature, models):
            owners.append(feature)
            figure.add_scatter(
                x=line.points["alpha"],
                y=line.points["kl"],
                name=line.name,
                mode="lines" if line.random else "lines+markers",
                opacity=0.45 if line.random else 1.0,
                line={"color": line.color, "dash": DASHES[line.where]},
                visible=feature == features[0],
            )
    buttons = [
        {
            "label": _title(table, feature),
            "method": "update",
            "args": [{"visible": [owner == feature for owner in owners]}],
        }
        for feature in features
    ]
    figure.update_layout(
        template="plotly_white",
        height=480,
        xaxis_title=ALPHA,
        yaxis_title=KL,
        updatemenus=[{"buttons": buttons, "x": 0, "xanchor": "left", "y": 1.15}] if buttons else [],
    )
    return figure


def _lines(table: pl.DataFrame, feature: int, models: tuple[str, str]) -> Iterator[Line]:
    """The curves of a feature: what was steered, beside the controls."""
    of_feature = table.filter(pl.col("feature") == feature).sort("alpha")
    keys = of_feature.select("steered", "mapped", "steerable").unique(maintain_order=True)
    for model, mapped, steerable in sorted(keys.iter_rows()):
        (shade,) = colors([model], *models)
        shade = _lighter(shade) if mapped else shade
        how = ", mapped direction" if mapped else "" if steerable else ", no direction"
        part = of_feature.filter((pl.col("steered") == model) & (pl.col("mapped") == mapped))
        for where in SETS:
            for random in (False, True):
                column = f"kl_random_{where}" if random else f"kl_{where}"
                points = part.select("alpha", pl.col(column).alias("kl"))
                if random:  # at alpha 0 any direction does nothing
                    points = points.with_columns(
                        kl=pl.when(pl.col("alpha") == 0).then(0.0).otherwise(pl.col("kl"))
                    )
                points = points.drop_nulls()
                if len(points) and (steerable or not random):
                    control = " (random)" if random else ""
                    name = f"{model}{how}, {where}{control}"
                    yield Line(name, shade, where, random, points)


def _features(table: pl.DataFrame) -> list[int]:
    return table["feature"].unique(maintain_order=True).to_list()


def _title(table: pl.DataFrame, feature: int) -> str:
    owner = table.filter(pl.col("feature") == feature)["claimed_for"][0]
    return f"feature {feature} ({owner})"


def _lighter(color: str) -> str:
    """Half way to white."""
    channels = [int(color[start : start + 2], 16) for start in (1, 3, 5)]
    return "#" + "".join(f"{(channel + 255) // 2:02x}" for channel in channels)
