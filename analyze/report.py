"""The report: one self-contained HTML page. Text from the corpus is escaped by the template."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import polars as pl

from analyze.analysis import Analysis
from analyze.config import AnalyzeConfig
from analyze.contexts import Context, context_of
from analyze.exclusive import Claim
from analyze.norms import bin_counts, group_summary
from analyze.plots import colors, histogram_figure
from store.files import write_atomic
from store.reader import Store


@dataclass(frozen=True)
class FeatureCard:
    """One feature as shown: its row of the norms table, label shares and contexts."""

    number: int
    row: dict[str, Any]
    shares: list[tuple[str, float]]
    ratio: float | None
    contexts: list[Context]


@dataclass(frozen=True)
class Section:
    """A model's claimed features."""

    model: str
    rule: str
    label: str | None
    cards: list[FeatureCard]


def write_report(
    store: Store,
    main: Analysis,
    baselines: list[Analysis],
    summary: dict[str, Any],
    config: AnalyzeConfig,
    path: Path,
) -> None:
    """Renders the page and writes it atomically."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("analyze"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    histogram = histogram_figure(main.table, main.models)
    page = environment.get_template("report.html.j2").render(
        store=store,
        main=main,
        baselines=baselines,
        summary=summary,
        config=config,
        groups=group_summary(main.table).to_dicts(),
        bins=bin_counts(main.table),
        sections=[_section(store, main, claim, config) for claim in reversed(main.claims)],
        labels=main.firing.labels.names,
        label_colors=colors(
            main.firing.labels.names, *(config.planted.get(model) for model in main.models)
        ),
        histogram=histogram.to_html(full_html=False, include_plotlyjs=True),
    )
    write_atomic(path, [page.encode("utf-8", errors="replace")])


def _section(store: Store, analysis: Analysis, claim: Claim, config: AnalyzeConfig) -> Section:
    label = config.planted.get(claim.model)
    cards = [_card(store, analysis, feature, label, config) for feature in claim.features]
    return Section(claim.model, claim.rule, label, cards)


def _card(
    store: Store, analysis: Analysis, feature: int, label: str | None, config: AnalyzeConfig
) -> FeatureCard:
    sums, names = analysis.firing, analysis.firing.labels.names
    shares = sums.shares()[feature].tolist()
    ratio = None if label is None else float(sums.rate_ratio(names.index(label))[feature])
    contexts = [
        context_of(store, analysis.dictionary, feature, row, value, config.context_rows)
        for row, value in analysis.top.of(feature)
    ]
    row = analysis.table.row(by_predicate=pl.col("feature") == feature, named=True)
    return FeatureCard(feature, row, list(zip(names, shares, strict=True)), ratio, contexts)
