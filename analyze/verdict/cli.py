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
    orderly,
    read_settings,
    rows_table,
)
from pipeline.command import (
    ConfigOption,
    JsonOption,
    SetOption,
    StoreOption,
    next_command,
    note,
)

if TYPE_CHECKING:
    from analyze.config import AnalyzeConfig
    from analyze.verdict.build import Verdict
    from pipeline.specs import ModelSpec
    from train.steps import OnStep

STEERING = "steering_agreement"
MEANING = (
    "Exclusive means: no linear counterpart in the other model's activations at these hookpoints, "
    "on this corpus."
)
PARAGRAPHS = [
    MEANING + " Candidates are the features of exclusive groups, and those both models see of "
    "which one has more than analyze.candidate_norm of the decoder norms.",
    "Evidence, of which small values speak for exclusivity. readout_ratio: R^2 of the best linear "
    "readout of the feature's activation from the other model's activations, over that from its "
    "own model's; mapped_norm: how much of its decoder the map to the other model leaves (`analyze "
    "transfer`). direction: |v| / |d|, the best direction on the other model's residual (`analyze "
    "scaling`). other_norm_share: R or 1 - R (`analyze norms`). steering_agreement, with --steer: "
    "the cosine between what the feature's direction does to its own model's prediction of how the "
    "text goes on, and what the mapped one does to the other's, in analyze.contexts texts where it "
    "fires (4 passes over them per feature). All that has a null gets p-values; what "
    "analyze.evidence names decides.",
    "Nulls. copy: the dictionary's recipe, trained here on one model beside a rotated copy of "
    "itself, blurred until a linear map predicts the model from it no better than from the other "
    "one, though half of every direction stays: all has a counterpart. Where the dictionary has "
    "exclusive groups, every feature of the null's is one model's alone. shared: this dictionary's "
    "shared features, read from either model; those that are steered with are the null of "
    "steering_agreement. "
    "p = (1 + #{null <= x}) / (1 + n), beside features that fire about as often; of several nulls "
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
    steer: Annotated[
        bool,
        typer.Option(
            "--steer",
            help="Run the models, steered with the called features and with shared ones. What "
            "was measured before is used in any case.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """The verdict per feature: which only one model has, at a stated false-discovery rate."""
    overrides = [*(set_ or []), *([f"analyze.fdr={fdr}"] if fdr is not None else [])]
    overrides += [f"analyze.nulls=[{', '.join(null)}]"] if null else []
    settings, section = read_settings(config, overrides)
    steer = steer or STEERING in section.evidence
    specs = settings.models if steer else None  # what is wrong with them is said first
    opened = open_all(settings, section, store, dictionary, out)
    with orderly():
        found, files = judged(opened, specs)
    _say(opened, found, files, as_json)
    if not as_json:
        print(
            "next:",
            next_command("analyze report", config, overrides, store=store, dictionary=dictionary),
        )


exclusivity.__doc__ = "\n\n".join([exclusivity.__doc__ or "", *PARAGRAPHS])


def judged(opened: Opened, specs: dict[str, ModelSpec] | None = None) -> tuple[Verdict, list[Path]]:
    """The verdict, written as a table; a null is trained under a progress bar if need be.

    specs: of the models to steer with what has not been steered with before, None for none.
    """
    import polars as pl

    from analyze.causal.agreement_run import Agreements
    from analyze.norms import model_pair
    from analyze.verdict.build import exclusivity as build
    from analyze.verdict.plots import verdict_figure, verdict_png

    steer = Agreements(opened, specs)
    subject, section = opened.subject, opened.section
    found = build(subject, section, opened.out, opened.sweep_into, _train_bar, steer)
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
    from analyze.verdict.caution import caution
    from analyze.verdict.judge import counts
    from analyze.verdict.steering import steering_summary

    section: AnalyzeConfig = opened.section
    return {
        "fdr": section.fdr,
        "meaning": MEANING,
        "caution": caution(opened.subject.dictionary),
        "models": counts(found.table, model_pair(opened.subject.dictionary), section).to_dicts(),
        "nulls": {name: null.height for name, null in found.nulls.items()},
        "smallest_p": found.smallest_p,
        "steering": steering_summary(found.table, found.nulls.get("steered")),
    }


def _say(opened: Opened, found: Verdict, files: list[Path], as_json: bool) -> None:
    said = summary(opened, found)
    if as_json:
        print(json.dumps({**said, "files": [str(file) for file in files]}, indent=2))
        return
    out = Console()
    out.print(rows_table(said["models"], "called exclusive, by false-discovery rate"))
    counted = {name: lines for name, lines in said["nulls"].items() if lines}
    nulls = ", ".join(f"{name} ({lines} values)" for name, lines in counted.items())
    out.print(f"{MEANING} Nulls: {nulls}; no p-value can be below {said['smallest_p']:.2g}.")
    if said["caution"]:
        note(said["caution"])
    shown = ["feature", "claimed_for", "fires", "readout_ratio", "p", "q"]
    if said["steering"]:
        shown.append("steering_agreement")
        title = "agreement of what steering does: candidates that were steered, shared features"
        out.print(rows_table(said["steering"], title))
    called = found.table.filter(found.table["verdict"] == "exclusive").head(15).select(shown)
    if not called.is_empty():
        out.print(rows_table(called.to_dicts(), f"exclusive at {said['fdr']:.0%}, strongest first"))
    print(f"written: {', '.join(str(file) for file in files)}")
