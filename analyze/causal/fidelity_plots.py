"""Loss recovered by label and model as bars, as a PNG and as an interactive page."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import plotly.graph_objects as go
import polars as pl
from matplotlib.figure import Figure

from analyze.plots import colors

matplotlib.use("Agg")
AXIS = "loss recovered (of zero ablation)"
LOWEST = -0.5  # a bar that is worse than this says no more by being longer


def fidelity_png(table: pl.DataFrame, path: Path) -> None:
    """A group of bars per label, one per model; a line for what is recovered of mean ablation."""
    labels, models = _axes(table)
    figure = Figure(figsize=(max(5.0, 1.6 + 1.1 * len(labels)), 4), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(models)
    for number, (model, shade) in enumerate(zip(models, _shades(models), strict=True)):
        places = [place + (number - (len(models) - 1) / 2) * width for place in range(len(labels))]
        axes.bar(
            places,
            _values(table, model, labels, "loss_recovered"),
            width * 0.92,
            color=shade,
            label=model,
        )
        beside_mean = _values(table, model, labels, "loss_recovered_mean")
        axes.hlines(
            beside_mean,
            [place - width * 0.46 for place in places],
            [place + width * 0.46 for place in places],
            color="black",
            lw=1.2,
            label="of mean ablation" if number == len(models) - 1 else "_none",
        )
    axes.set_xticks(range(len(labels)), labels, rotation=30 if len(labels) > 6 else 0)
    for height in (0, 1):  # as bad as the ablation, as good as the model itself
        axes.axhline(height, color="#888888", lw=0.8)
    axes.set_ylabel(AXIS)
    figure.legend(title="model", loc="outside right upper")
    figure.savefig(path, dpi=150)


def fidelity_figure(table: pl.DataFrame) -> go.Figure:
    """The same, interactive: a bar says cross entropies and KL."""
    labels, models = _axes(table)
    figure = go.Figure()
    for model, shade in zip(models, _shades(models), strict=True):
        own = {line["label"]: line for line in table.filter(pl.col("model") == model).to_dicts()}
        figure.add_bar(
            x=labels,
            y=_values(table, model, labels, "loss_recovered"),
            name=model,
            marker_color=shade,
            hovertext=[_words(own[label]) if label in own else "" for label in labels],
        )
        figure.add_scatter(
            x=labels,
            y=_values(table, model, labels, "loss_recovered_mean"),
            name=f"{model}, of mean ablation",
            mode="markers",
            marker={"color": shade, "symbol": "line-ew-open", "size": 18, "line": {"width": 2}},
        )
    figure.update_layout(
        barmode="group", template="plotly_white", height=460, yaxis={"title": AXIS}
    )
    return figure


def _axes(table: pl.DataFrame) -> tuple[list[str], list[str]]:
    return (
        table["label"].unique(maintain_order=True).to_list(),
        table["model"].unique(maintain_order=True).to_list(),
    )


def _shades(models: list[str]) -> list[str]:
    return colors(models, models[0], models[-1] if len(models) > 1 else None)


def _values(table: pl.DataFrame, model: str, labels: list[str], column: str) -> list[float]:
    """A value per label; NaN, which is not drawn, where there is none."""
    own = dict(table.filter(pl.col("model") == model).select("label", column).iter_rows())
    return [_drawn(own.get(label)) for label in labels]


def _drawn(value: float | None) -> float:
    return float("nan") if value is None else max(value, LOWEST)


def _words(line: dict[str, float | None]) -> str:
    entropies = ", ".join(
        f"{name} {line[f'ce_{name}']:.3f}" for name in ("clean", "reconstruction", "zero", "mean")
    )
    recovered = line["loss_recovered"]
    exact = "" if recovered is None else f"recovered {recovered:.3f}<br>"
    return f"{exact}cross entropy {entropies} nats<br>KL {line['kl_reconstruction']:.3f} nats"
