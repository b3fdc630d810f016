"""The report: one self-contained HTML page, for a desktop, a phone, paper, in the light and dark.

Costs a read of the tables and some 5 kB per feature shown. The page holds what it shows as JSON and
draws a feature when it is opened. Text of the corpus, tokens and names reaches the document only as
text, and a content security policy lets no script run but the page's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from analyze.analysis import Analysis
from analyze.config import AnalyzeConfig
from analyze.norms import bin_counts, group_summary
from analyze.page.charts import Norms, Scatter, norms_chart, scatter_charts, shades
from analyze.page.choose import chosen
from analyze.page.embed import embedded, source_hash, visible
from analyze.page.evidence import MEANINGS
from analyze.page.feature import FeatureLine
from analyze.page.features import QUANTILES, Features
from analyze.page.lines import largest, rows
from analyze.page.made import made
from analyze.page.overview import Overview, overview
from analyze.tables import Tables
from analyze.verdict.judge import fdr_of
from store.files import json_bytes, write_atomic

STYLE = ("page.css", "features.css")
SCRIPT = (
    *("elements.js", "data.js", "drawing.js", "charts.js", "table.js", "controls.js"),
    *("evidence.js", "feature.js", "main.js"),
)


@dataclass(frozen=True)
class Index:
    """What the script knows from the start; details of features are beside it, one by one."""

    models: tuple[str, str]
    labels: list[str]
    label_shades: list[str]
    group_shades: dict[str, str]
    quantiles: tuple[float, ...]
    judged: bool
    features: int
    norms: Norms
    scatters: list[Scatter]
    missing: dict[str, str]
    meanings: dict[str, str]
    lines: list[FeatureLine]


def write_report(
    analysis: Analysis,
    baselines: list[Analysis],
    tables: Tables,
    summary: dict[str, Any],
    config: AnalyzeConfig,
    raw_config: dict[str, Any],
    path: Path,
) -> None:
    """Renders the page of what the analysis and the tables of its folder know; writes atomically.

    summary: shown as it is; raw_config: the configuration that made it, as read from its file.
    """
    verdicts, fidelity = tables.read("exclusivity"), tables.read("fidelity")
    shown = chosen(analysis, verdicts, config.report_features)
    features = list(Features(analysis, tables, config, shown).read())
    fdr = config.fdr if verdicts is None else fdr_of(verdicts, config)
    top = overview(analysis, verdicts, fidelity, fdr)
    provenance = made(analysis, baselines, tables, raw_config, path)
    index = _index(analysis, tables, config, top, [f.line for f in features], provenance.missing)
    replaced = rows(tables.read("replace"))
    environment = _environment()
    style, script = _joined(environment, STYLE), f"(() => {{\n{_joined(environment, SCRIPT)}}})();"
    page = environment.get_template("report.html.j2").render(
        main=analysis,
        baselines=baselines,
        config=config,
        top=top,
        made=provenance,
        scatters=index.scatters,
        replaced=replaced,
        replaced_most=largest(replaced, "kl"),
        groups=group_summary(analysis.table).to_dicts(),
        bins=bin_counts(analysis.table),
        exclusive=summary.get("exclusive"),
        summary=json_bytes(summary).decode(),
        style=Markup(style),
        script=Markup(script),
        policy=_policy(style, script),
        index=Markup(embedded(index)),
        details=[(feature.line.number, Markup(feature.detail)) for feature in features],
    )
    write_atomic(path, [page.encode("utf-8", errors="replace")])


def _index(
    analysis: Analysis,
    tables: Tables,
    config: AnalyzeConfig,
    top: Overview,
    lines: list[FeatureLine],
    missing: dict[str, str],
) -> Index:
    labels = analysis.firing.labels.names
    planted = [config.planted.get(model) for model in analysis.models]
    groups = analysis.table["group"].unique(maintain_order=True).to_list()
    return Index(
        models=analysis.models,
        labels=labels,
        label_shades=shades(labels, *planted),
        group_shades=dict(zip(groups, shades(groups, *analysis.models), strict=True)),
        quantiles=QUANTILES,
        judged=top.judged,
        features=len(analysis.table),
        norms=norms_chart(analysis.table, analysis.models),
        scatters=scatter_charts(lines, tables),
        missing=missing,
        meanings=MEANINGS,
        lines=lines,
    )


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("analyze"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else visible(value),
    )
    environment.filters["percent"] = lambda value, digits=1: f"{100 * value:.{digits}f}%"
    environment.filters["known"] = lambda value, form: "–" if value is None else form % value
    return environment


def _joined(environment: jinja2.Environment, names: tuple[str, ...]) -> str:
    """Sources one behind the other, as they are."""
    assert environment.loader is not None
    return "\n".join(environment.loader.get_source(environment, name)[0] for name in names)


def _policy(style: str, script: str) -> str:
    """The page's own script and style, and nothing from anywhere."""
    allowed = f"script-src {source_hash(script)}; style-src {source_hash(style)}"
    return f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"
