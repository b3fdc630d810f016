"""`store verify`, and `store verify --repair`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from pipeline.command import ConfigOption, JsonOption, SetOption, console, progress_bar
from store.where import StorePath, store_path

if TYPE_CHECKING:
    from store.repair import RepairedPart
    from store.verify import VerifyResult

Repair = Annotated[
    bool,
    typer.Option(
        "--repair",
        help="Cut damaged parts back to their last good commit, so that running the harvest again "
        "continues them; write damaged metadata anew (default: off, nothing is written).",
    ),
]


def verify(
    path: StorePath = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    repair: Repair = False,
    as_json: JsonOption = False,
) -> None:
    """Reads every byte of a store against its checksums and counts; exit code 1 if any is off."""
    from store.repair import repair as mend
    from store.root import read_root

    place = store_path(path, config, set_)
    read_root(place)  # without it there is nothing to verify
    result, found, parts = _check(place), list[str](), list["RepairedPart"]()
    if repair and result.problems:
        found = result.problems
        for problem in found:
            console.print(f"[bold]found:[/] {escape(problem)}", soft_wrap=True)
        with console.status("repairing"):
            parts = mend(place)
        result = _check(place)
    if as_json:
        repaired = {"found": found, "parts": [vars(part) for part in parts]} if repair else None
        print(json.dumps({**vars(result), "repaired": repaired}, indent=2))
    else:
        for part in parts:
            print(part)
        if not result.problems:
            print(f"{place}: {_passed(result)}")
    for problem in result.problems:
        console.print(f"[bold red]error:[/] {escape(problem)}", soft_wrap=True)
    if result.problems:
        raise typer.Exit(1)


def _check(path: Path) -> VerifyResult:
    """Verifies with a progress bar."""
    from store.verify import verify as check

    with progress_bar("rows") as bar:
        task = bar.add_task("verify", total=None, note="")
        return check(path, lambda done, total: bar.update(task, completed=done, total=total))


def _passed(result: VerifyResult) -> str:
    text = f"{result.rows:,} rows, {result.bytes_read:,} bytes: all checks passed"
    if not result.complete:
        text += "\nINCOMPLETE: run the harvest again to continue"
    if result.missing:
        text += f"; nothing there yet of part {', '.join(result.missing)}"
    return text
