"""`analyze norms` and `analyze report`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from analyze.config import AnalyzeConfig
from pipeline.command import (
    ConfigOption,
    JsonOption,
    SetOption,
    make_app,
    progress_bar,
    read_config,
    run,
)
from pipeline.config import Config, describe

if TYPE_CHECKING:
    from analyze.analysis import Analysis
    from store.reader import Store

app = make_app("Find out what is exclusive to which model, and show it.")

StoreOption = Annotated[
    Path | None,
    typer.Option("--store", help="The store (default: RUN_DIR/store.zarr of the config)."),
]
DictionaryOption = Annotated[
    Path | None,
    typer.Option(
        "--dictionary", help="The dictionary (default: RUN_DIR/dictionary of the config)."
    ),
]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", help="Folder for tables (default: RUN_DIR/analysis of the config)."),
]


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
    settings, section = _settings(config, set_)
    from analyze.analysis import write_tables
    from analyze.norms import bin_counts, group_summary
    from store.reader import Store

    store_path = store or settings.store_path
    analysis = _analyze(Store(store_path), dictionary or settings.dictionary_path, section)
    files = write_tables(analysis, out or settings.analysis_path)
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
    print("next: analyze report")


@app.command(epilog=describe(AnalyzeConfig, "analyze"))
def report(
    store: StoreOption = None,
    dictionary: DictionaryOption = None,
    baseline: Annotated[
        list[Path] | None,
        typer.Option(
            "--baseline",
            help="A dictionary to compare with; may be repeated "
            "(default: every folder DICTIONARY-* beside the dictionary).",
        ),
    ] = None,
    out: OutOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    check: Annotated[
        bool, typer.Option("--check", help="Only validate the configuration (default: off).")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Tables, plots, report.html and summary.json: which features only one model has."""
    settings, section = _settings(config, set_)
    if check:
        return
    from analyze.analysis import write_tables
    from analyze.report import write_report
    from analyze.summary import summarize
    from store.files import write_json
    from store.reader import Store

    opened = Store(store or settings.store_path)
    main_folder = dictionary or settings.dictionary_path
    tables = out or settings.analysis_path
    main_analysis = _analyze(opened, main_folder, section)
    write_tables(main_analysis, tables)
    baselines = []
    for folder in baseline if baseline is not None else _siblings(main_folder):
        baselines.append(_analyze(opened, folder, section))
        write_tables(baselines[-1], tables / baselines[-1].recipe)
    summary = summarize(opened, main_analysis, baselines)
    page = tables.parent / "report.html"
    write_report(opened, main_analysis, baselines, summary, section, page)
    write_json(tables.parent / "summary.json", summary)
    if as_json:
        print(json.dumps(summary, indent=2))
        return
    _print_norms(main_analysis)
    _print_planted([main_analysis, *baselines], section)
    print(f"written: {tables}/, {tables.parent / 'summary.json'}")
    print(f"open: {page}")


def _settings(file: Path | None, overrides: list[str] | None) -> tuple[Config, AnalyzeConfig]:
    settings = read_config(file, overrides)
    return settings, settings.section("analyze", AnalyzeConfig)


def _siblings(folder: Path) -> list[Path]:
    """Dictionaries that the same training run wrote beside the main one."""
    return sorted(
        place
        for place in folder.parent.glob(f"{folder.name}-*")
        if (place / "config.json").exists()
    )


def _analyze(store: Store, folder: Path, section: AnalyzeConfig) -> Analysis:
    from analyze.analysis import analyze
    from train.artifact import read_description

    read_description(folder)  # an error must not come from under a progress bar
    with progress_bar("rows") as bar:
        task = bar.add_task(f"sweep {folder.name}", total=store.rows, note="")
        return analyze(store, folder, section, lambda rows: bar.update(task, advance=rows))


def _print_norms(analysis: Analysis) -> None:
    from analyze.norms import bin_counts, group_summary

    out = Console()
    rows = group_summary(analysis.table).to_dicts()
    out.print(_table(rows, "features by partition group"))
    first, second = analysis.models
    bins = "  ".join(f"{name}: {count}" for name, count in bin_counts(analysis.table).items())
    out.print(
        f"relative decoder norm (1: {first} alone, 0: {second} alone), alive features  {bins}"
    )
    fve = "  ".join(f"{model} {value:.3f}" for model, value in analysis.fve.items())
    dead = "  ".join(f"{model} {value:.1%}" for model, value in analysis.dead_fraction.items())
    out.print(
        f"held-out FVE  {fve}   dead  {dead}   L0 {analysis.result.l0:.1f}   "
        "(norms in scaled units)"
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
        Console().print(_table(rows, title))


def _table(rows: list[dict[str, Any]], title: str) -> Table:
    table = Table(*rows[0], title=title, title_justify="left")
    for row in rows:
        table.add_row(*(f"{v:.3f}" if isinstance(v, float) else str(v) for v in row.values()))
    return table


def main() -> None:
    """Console entry point."""
    run(app)
