"""`analyze report`: one sweep, the tables that the configuration asks for, and the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from analyze.command import (
    DictionaryOption,
    Opened,
    open_all,
    orderly,
    read_settings,
    rows_table,
)
from analyze.config import AnalyzeConfig
from analyze.norms_cli import analyzed, print_norms, write_norms
from pipeline.command import CheckOption, ConfigOption, JsonOption, SetOption, StoreOption, note
from pipeline.config import Config
from pipeline.errors import ConfigError, DictionaryError

if TYPE_CHECKING:
    from analyze.analysis import Analysis

STEERING = "steering_agreement"
REPORT_ALPHAS = (-2.0, -1.0, 0.0, 1.0, 2.0)
PARAGRAPHS = [
    "One pass over the store gives every statistic, and is kept: a second report reads no row. "
    "analyze.report says which tables are made besides norms; those that other commands made of "
    "the same dictionary are shown, too. fidelity and steer run the models, and exclusivity trains "
    "its null; what of them is there already is not made again (delete the folder, or run the "
    "command itself).",
    "The page needs no network and no server; everything from the corpus is shown as text.",
]


def report(
    store: StoreOption = None,
    dictionary: DictionaryOption = None,
    baseline: Annotated[
        list[Path] | None,
        typer.Option(
            "--baseline",
            help="A dictionary to compare with; may be repeated "
            "(default: those of the config's further recipes; none if --dictionary is given).",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder for all of it (default: RUN_DIR of the config)."),
    ] = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    fresh: Annotated[
        bool,
        typer.Option(
            "--fresh",
            help="Make everything anew: remove the sums, nulls and tables of earlier commands "
            "first; not the explanations of `analyze explain` (default: off).",
        ),
    ] = False,
    check: CheckOption = False,
    as_json: JsonOption = False,
) -> None:
    """Tables, plots, report.html and summary.json: which features only one model has."""
    settings, section = read_settings(config, set_)
    if check:
        return
    from analyze.status import discard
    from train.lock import locked

    folder = out or settings.run_dir
    with locked(folder / "analysis", "report"), orderly():
        opened = open_all(settings, section, store, dictionary, folder / "analysis")
        if fresh:
            discard(opened)
        _report(opened, settings, baseline, dictionary is None, folder, as_json)


report.__doc__ = "\n\n".join([report.__doc__ or "", *PARAGRAPHS])


def _report(
    opened: Opened,
    settings: Config,
    baseline: list[Path] | None,
    of_the_config: bool,
    folder: Path,
    as_json: bool,
) -> None:
    """Makes and writes all of it, and says so. of_the_config: the main dictionary is that one."""
    from analyze.baselines import baselines_of
    from analyze.everything import everything
    from analyze.report import write_report
    from analyze.status import note_report
    from analyze.summary import summarize
    from store.files import write_json

    section, tables = opened.section, opened.out
    if baseline is None:
        baseline = baselines_of(settings) if of_the_config else []
    _refuse_equal_names(baseline)
    opened.sweep(everything(opened.subject, section))
    main = analyzed(opened)
    write_norms(opened, main)
    _make(opened, settings, set(section.report))
    baselines = []
    for other in baseline:
        beside = open_all(settings, section, opened.subject.store.path, other, tables / other.name)
        baselines.append(analyzed(beside))
        write_norms(beside, baselines[-1])
    summary = summarize(main, baselines, opened.tables, section)
    page = folder / "report.html"
    write_report(main, baselines, opened.tables, summary, section, settings.raw, page)
    write_json(folder / "summary.json", summary)
    note_report(opened, [str(other) for other in baseline])
    if as_json:
        print(json.dumps(summary, indent=2))
        return
    print_norms(main, section)
    _print_exclusive(summary)
    _print_planted([main, *baselines], section)
    print(f"written: {tables}/, {folder / 'summary.json'}")
    print(f"open: {page}")


def _make(opened: Opened, settings: Config, wanted: set[str]) -> None:
    """The tables that are asked for; the costly ones only where they are not there yet."""
    from analyze.causal.fidelity_cli import write_fidelity
    from analyze.causal.steer_cli import write_steer
    from analyze.causal.steer_run import Asked
    from analyze.features.cli import write_features
    from analyze.scaling_cli import write_scaling
    from analyze.transfer.cli import write_transfer
    from analyze.verdict.cli import judged

    if "scaling" in wanted:
        write_scaling(opened, directions=True)
    if "transfer" in wanted:
        write_transfer(opened)
    candidates: list[int] = []
    if "exclusivity" in wanted and _may_be_judged(opened, settings):
        steers = STEERING in opened.section.evidence
        verdict, _ = judged(opened, settings.models if steers else None)
        candidates = verdict.table["feature"].to_list()
    if "features" in wanted:
        write_features(opened, settings, candidates)
    for name in ("fidelity", "steer"):
        if name in wanted and not settings.raw.get("models"):
            note(f"no {name}: the configuration has no models")
            wanted = wanted - {name}
    if "fidelity" in wanted and opened.tables.read("fidelity") is None:
        write_fidelity(opened, settings.models, opened.section.report_documents)
    if "steer" in wanted and opened.tables.read("steer") is None:
        asked = Asked(top=opened.section.report_steered, alphas=REPORT_ALPHAS, prompts=1)
        write_steer(opened, settings.models, asked)


def _may_be_judged(opened: Opened, settings: Config) -> bool:
    """Says so where what the verdict needs is not to be had: that must not cost the report."""
    from analyze.null.train import null_config

    if STEERING in opened.section.evidence and not settings.raw.get("models"):
        note(f"no verdicts: {STEERING} needs models in the configuration")
        return False
    if "copy" in opened.section.nulls:
        try:
            null_config(opened.subject, 0, opened.section.null_share)
        except DictionaryError as error:
            note(f"no verdicts: {error}")
            return False
    return True


def _refuse_equal_names(baselines: list[Path]) -> None:
    """Their tables lie in folders of their names."""
    names = [folder.name for folder in baselines]
    for folder in baselines:
        if folder.name in ("", "..") or names.count(folder.name) > 1:
            raise ConfigError(
                f"--baseline {folder}: baselines need names of their own, for their tables lie in "
                "folders of these; name it by a path that ends in one, or copy it"
            )


def _print_exclusive(summary: dict[str, Any]) -> None:
    found = summary["exclusive"]
    if found is not None:
        title = f"exclusive at a false-discovery rate of {found['fdr']:.0%}"
        Console().print(rows_table(found["models"], title))
        if found["caution"]:
            note(found["caution"])


def _print_planted(analyses: list[Analysis], section: AnalyzeConfig) -> None:
    rows: list[dict[str, Any]] = [
        {
            "dictionary": analysis.recipe,
            **{
                f"{count.model} on {count.label}": f"{count.fires_there} of {count.of}"
                for count in analysis.planted
            },
        }
        for analysis in analyses
        if analysis.planted
    ]
    if rows:
        title = f"claimed features that fire >= {section.planted_ratio:g}x as often on own domain"
        Console().print(rows_table(rows, title))
