"""`store info` and `store verify`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from pipeline.command import (
    ConfigOption,
    JsonOption,
    SetOption,
    console,
    make_app,
    progress_bar,
    read_config,
    run,
)

INCOMPLETE = "INCOMPLETE: run the harvest again to continue"

app = make_app("Look at and check activation stores.")
StorePath = Annotated[
    Path | None, typer.Argument(help="The store (default: RUN_DIR/store.zarr of the config).")
]


@app.command()
def info(
    path: StorePath = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Says what a store holds: rows, documents, hookpoints, norms, paired tokens."""
    from store.summary import summarize

    summary = summarize(_path(path, config, set_))
    if as_json:
        print(json.dumps(summary, indent=2))
        return
    out = Console()
    state = "complete" if summary["complete"] else INCOMPLETE
    out.print(
        f"[bold]{escape(summary['path'])}[/]: {summary['rows']:,} rows of {summary['documents']:,} "
        f"documents, {summary['bytes'] / 1e6:,.1f} MB, {summary['parts']} part(s), {state}",
        soft_wrap=True,
    )
    table = Table(
        Column("hookpoint", overflow="fold"),
        "width",
        "dtype",
        "median norm",
        "99% norm",
        "tokens paired",
    )
    for entry in summary["hookpoints"]:
        table.add_row(
            escape(entry["name"]),
            str(entry["width"]),
            entry["dtype"],
            f"{entry['norm_median']:.2f}",
            f"{entry['norm_p99']:.2f}",
            f"{entry['paired_fraction']:.1%}",
        )
    out.print(table)
    labels = ", ".join(f"{name or '(none)'} {count:,}" for name, count in summary["labels"].items())
    out.print(f"documents by label: {escape(labels)}", soft_wrap=True)


@app.command()
def verify(
    path: StorePath = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Reads every byte of a store against its checksums and counts; exit code 1 if any is off."""
    from store.reader import Store
    from store.verify import verify as check

    store = Store(_path(path, config, set_))
    with progress_bar("rows") as bar:
        task = bar.add_task("verify", total=store.rows, note="")
        result = check(store, lambda rows: bar.update(task, advance=rows))
    if as_json:
        print(json.dumps(vars(result), indent=2))
    elif not result.problems:
        note = "" if result.complete else f"; {INCOMPLETE}"
        print(
            f"{store.path}: {result.rows:,} rows, {result.bytes_read:,} bytes: "
            f"all checks passed{note}"
        )
    for problem in result.problems:
        console.print(f"[bold red]error:[/] {escape(problem)}", soft_wrap=True)
    if result.problems:
        raise typer.Exit(1)


def _path(path: Path | None, config: Path | None, overrides: list[str] | None) -> Path:
    """The given path, or the store of the configuration's run."""
    return path if path is not None else read_config(config, overrides).store_path


def main() -> None:
    """Console entry point."""
    run(app)
