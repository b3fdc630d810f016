"""`analyze norms` and `analyze report`; where the other commands of `analyze` hang."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from analyze.command import (
    SWEEP,
    DictionaryOption,
    Opened,
    OutOption,
    open_all,
    read_settings,
    rows_table,
    word,
)
from analyze.config import AnalyzeConfig
from analyze.scaling_cli import scaling
from pipeline.command import (
    CheckOption,
    ConfigOption,
    JsonOption,
    SetOption,
    StoreOption,
    make_app,
    next_command,
    progress_bar,
    run,
)
from pipeline.config import Config, describe

if TYPE_CHECKING:
    from analyze.analysis import Analysis

app = make_app("Find out what is exclusive to which model, and show it.")


@app.command(epilog=describe(AnalyzeConfig, "analyze"))
def norms(
    store: StoreOption = None,
    dictionary: DictionaryOption = None,
    out: OutOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Decoder norms, relative decoder norm, group and firing density of every feature."""
    settings, section = read_settings(config, set_)
    from analyze.norms import bin_counts, group_summary

    section = section.model_copy(update={"planted": {}})  # norms ask for no known answer
    opened = open_all(settings, section, store, dictionary, out)
    analysis = analyzed(opened)
    files = write_norms(opened, analysis)
    if as_json:
        value = {
            "groups": group_summary(analysis.table).to_dicts(),
            "relative_decoder_norm_bins": bin_counts(analysis.table),
            "fve": analysis.fve,
            "dead_fraction": analysis.dead_fraction,
            "files": [str(file) for file in files],
        }
        print(json.dumps(value, indent=2))
        return
    _print_norms(analysis)
    print(f"written: {', '.join(str(file) for file in files)}")
    print("next:", next_command("analyze report", config, set_, store=store, dictionary=dictionary))


@app.command(epilog=describe(AnalyzeConfig, "analyze"))
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
    check: CheckOption = False,
    as_json: JsonOption = False,
) -> None:
    """Tables, plots, report.html and summary.json: which features only one model has."""
    settings, section = read_settings(config, set_)
    if check:
        return
    from analyze.report import write_report
    from analyze.summary import summarize
    from store.files import write_json

    folder = out or settings.run_dir
    tables = folder / "analysis"
    opened = open_all(settings, section, store, dictionary, tables)
    main_analysis = analyzed(opened)
    write_norms(opened, main_analysis)
    if baseline is None:
        baseline = _baselines(settings) if dictionary is None else []
    baselines = []
    for other in baseline:
        beside = open_all(settings, section, store, other, tables / other.name)
        baselines.append(analyzed(beside))
        write_norms(beside, baselines[-1])
    rows = opened.subject.store
    summary = summarize(rows, main_analysis, baselines)
    page = folder / "report.html"
    write_report(main_analysis, baselines, opened.tables, summary, section, settings.raw, page)
    write_json(folder / "summary.json", summary)
    if as_json:
        print(json.dumps(summary, indent=2))
        return
    _print_norms(main_analysis)
    _print_planted([main_analysis, *baselines], section)
    print(f"written: {tables}/, {folder / 'summary.json'}")
    print(f"open: {page}")


app.command(epilog=describe(AnalyzeConfig, "analyze"))(scaling)


def _baselines(settings: Config) -> list[Path]:
    """Dictionaries of the configuration's further recipes, as far as they have been trained."""
    from train.config import TrainConfig
    from train.recipes.presets import planned
    from train.recipes.recipe import output_folder

    plans = planned(settings.section("train", TrainConfig))
    folders = [
        output_folder(settings.dictionary_path, n, plan.name) for n, plan in enumerate(plans)
    ]
    return [folder for folder in folders[1:] if (folder / "config.json").exists()]


def analyzed(opened: Opened) -> Analysis:
    """The analysis that every report begins with; the sweep, if one is needed, under a bar."""
    from analyze.analysis import analyze

    name = escape(opened.subject.folder.name)
    with progress_bar("rows") as bar:
        task = bar.add_task(f"sweep {name}", total=opened.subject.store.rows, note="")
        return analyze(
            opened.subject,
            opened.section,
            opened.out / SWEEP,
            lambda rows: bar.update(task, advance=rows),
        )


def write_norms(opened: Opened, analysis: Analysis) -> list[Path]:
    """The norms table with its histogram."""
    from analyze.plots import histogram_figure, histogram_png

    table, models = analysis.table, analysis.models
    png = partial(histogram_png, table, models)
    return opened.tables.write("norms", table, png, histogram_figure(table, models))


def _print_norms(analysis: Analysis) -> None:
    from analyze.norms import bin_counts, group_summary

    out = Console()
    rows = group_summary(analysis.table).to_dicts()
    out.print(rows_table(rows, "features by partition group"))
    first, second = analysis.models
    bins = "  ".join(f"{name}: {count}" for name, count in bin_counts(analysis.table).items())
    out.print(
        f"relative decoder norm (1: {first} alone, 0: {second} alone), alive features  {bins}"
    )
    fve = "  ".join(f"{model} {word(value)}" for model, value in analysis.fve.items())
    dead = "  ".join(f"{model} {value:.1%}" for model, value in analysis.dead_fraction.items())
    out.print(
        f"held-out FVE  {fve}   dead  {dead}   L0 {word(analysis.l0)}   (norms in scaled units)"
    )


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


def main() -> None:
    """Console entry point."""
    run(app)
