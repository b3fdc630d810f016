"""`analyze exclusivity`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from analyze.command import (
    DictionaryOption,
    Opened,
    OutOption,
    bar_when_needed,
    open_all,
    read_settings,
    rows_table,
)
from pipeline.command import (
    ConfigOption,
    JsonOption,
    SetOption,
    StoreOption,
    next_command,
)

if TYPE_CHECKING:
    from analyze.config import AnalyzeConfig
    from analyze.verdict.build import Verdict
    from train.steps import OnStep

MEANING = (
    "Exclusive means: no linear counterpart in the other model's activations at these hookpoints, "
    "on this corpus."
)
PARAGRAPHS = [
    MEANING + " Candidates are the features of exclusive groups, and those both models see of "
    "which one has more than analyze.candidate_norm of the decoder norms.",
    "readout_ratio: R^2 of the best linear readout of the feature's activation from the other "
    "model's activations, over that from its own model's (`analyze transfer`). direction: |v| / "
    "|d|, the best direction on the other model's residual (`analyze scaling`). Small values speak "
    "for exclusivity.",
    "Two nulls. copy: the dictionary's recipe, trained here on one model beside a rotated copy of "
    "itself, blurred by what the best linear map between the real models fails to predict; where "
    "the dictionary has exclusive groups, every feature of the null's is one model's alone, though "
    "each has a counterpart. shared: this dictionary's shared features, read from either model. "
    "p = (1 + #{null <= x}) / (1 + n), among features that fire about as often; of several nulls "
    "and several pieces of evidence the largest p counts (Berger 1982).",
    "Called are those with q <= FDR (Benjamini & Hochberg 1995) whose readout ratio is below "
    "analyze.counterpart, too. Measured against a known truth: benchmarks/RESULTS.md.",
]


def exclusivity(
    store: StoreOption = None,
    dictionary: DictionaryOption = None,
    out: OutOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    fdr: Annotated[
        float | None,
        typer.Option("--fdr", help="Share of the called that may be false (default: analyze.fdr)."),
    ] = None,
    null: Annotated[
        list[str] | None,
        typer.Option("--null", help="copy or shared; may be repeated (default: analyze.nulls)."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """The verdict per feature: which only one model has, at a stated false-discovery rate."""
    overrides = [*(set_ or []), *([f"analyze.fdr={fdr}"] if fdr is not None else [])]
    overrides += [f"analyze.nulls=[{', '.join(null)}]"] if null else []
    settings, section = read_settings(config, overrides)
    opened = open_all(settings, section, store, dictionary, out)
    found, files = judged(opened)
    _say(opened, found, files, as_json)
    if not as_json:
        print(
            "next:",
            next_command("analyze report", config, overrides, store=store, dictionary=dictionary),
        )


exclusivity.__doc__ = "\n\n".join([exclusivity.__doc__ or "", *PARAGRAPHS])


def judged(opened: Opened) -> tuple[Verdict, list[Path]]:
    """The verdict, written as a table; a null is trained under a progress bar if need be."""
    import polars as pl

    from analyze.norms import model_pair
    from analyze.verdict.build import exclusivity as build
    from analyze.verdict.plots import verdict_figure, verdict_png

    found = build(opened.subject, opened.section, opened.out, opened.sweep_into, _train_bar)
    models = model_pair(opened.subject.dictionary)
    png = partial(verdict_png, found.table, found.nulls, models)
    figure = verdict_figure(found.table, found.nulls, models)
    null = pl.concat([t.with_columns(null=pl.lit(name)) for name, t in found.nulls.items()])
    return found, [
        *opened.tables.write("exclusivity", found.table, png, figure),
        *opened.tables.write("exclusivity_null", null),
    ]


@contextmanager
def _train_bar(run: int, steps: int) -> Iterator[OnStep]:
    with bar_when_needed("steps", f"train null {run + 1}", steps) as update:
        yield lambda done, note: update(completed=done, note=escape(note))


def summary(opened: Opened, found: Verdict) -> dict[str, Any]:
    """What was called, of how many, at which error."""
    from analyze.norms import model_pair
    from analyze.verdict.judge import counts

    section: AnalyzeConfig = opened.section
    return {
        "fdr": section.fdr,
        "meaning": MEANING,
        "models": counts(found.table, model_pair(opened.subject.dictionary), section).to_dicts(),
        "nulls": {name: null.height for name, null in found.nulls.items()},
        "smallest_p": found.smallest_p,
    }


def _say(opened: Opened, found: Verdict, files: list[Path], as_json: bool) -> None:
    said = summary(opened, found)
    if as_json:
        print(json.dumps({**said, "files": [str(file) for file in files]}, indent=2))
        return
    out = Console()
    out.print(rows_table(said["models"], "called exclusive, by false-discovery rate"))
    nulls = ", ".join(f"{name} ({lines} values)" for name, lines in said["nulls"].items())
    out.print(f"{MEANING} Nulls: {nulls}; no p-value can be below {said['smallest_p']:.2g}.")
    shown = ["feature", "claimed_for", "fires", "readout_ratio", "p", "q"]
    called = found.table.filter(found.table["verdict"] == "exclusive").head(15).select(shown)
    if not called.is_empty():
        out.print(rows_table(called.to_dicts(), f"exclusive at {said['fdr']:.0%}, strongest first"))
    print(f"written: {', '.join(str(file) for file in files)}")
