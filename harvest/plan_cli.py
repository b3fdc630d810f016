"""`harvest plan`: rows, bytes and time, before a long job."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from harvest.wording import left_out, paired
from pipeline.assumptions import (
    AssumeRate,
    AssumeRows,
    AssumeWidth,
    Assumptions,
    read_assumptions,
)
from pipeline.command import ConfigOption, JsonOption, SetOption, read_config
from pipeline.wording import duration, size

if TYPE_CHECKING:
    from harvest.estimate import Estimate
    from harvest.settings import Settings


OfOption = Annotated[
    int | None,
    typer.Option(
        "--of",
        help="How many tasks the store has; all must be told the same (default: the size of the "
        "Slurm job array, or 1).",
    ),
]


def plan(
    config: ConfigOption = None,
    set_: SetOption = None,
    of: OfOption = None,
    at_once: Annotated[
        int | None, typer.Option("--at-once", min=1, help="Tasks that run at the same time.")
    ] = None,
    assume_rows: AssumeRows = None,
    assume_width: AssumeWidth = None,
    assume_rate: AssumeRate = None,
    as_json: JsonOption = False,
) -> None:
    """Says what a harvest would write and take, from a sample and a short measured pass.

    Exits with code 1 if the disk cannot hold it. With --assume-rows, --assume-width and
    --assume-rate (of a task) it computes the same from these alone, before there is a machine.
    """
    assumptions = read_assumptions(assume_rows, assume_width, assume_rate)
    if assumptions is not None:
        _print_assumed(assumptions, of or 1, at_once, as_json)
        return
    from harvest.settings import Settings
    from harvest.tasks import Task

    settings = Settings.read(read_config(config, set_))
    settings.check_files()
    print_plan(settings, Task.read(0 if of else None, of).of, as_json)


def _print_assumed(given: Assumptions, of: int, at_once: int | None, as_json: bool) -> None:
    from harvest.assumed import assumed

    found = assumed(given.rows, given.widths, given.rate, of, at_once)
    if as_json:
        print(json.dumps(asdict(found), indent=2))
        return
    widths = ", ".join(f"{name} {width:,}" for name, width in found.widths.items())
    print(f"assumed: {found.rows:,} rows, widths {widths}, {given.rate:,.0f} rows/s per task")
    sizes = ", ".join(f"{codec} {size(count)}" for codec, count in found.bytes.items())
    print(f"store, by store.codec: {sizes}")
    print(
        f"{found.tasks} tasks of {duration(found.task_seconds)}, {found.at_once} at once: "
        f"{duration(found.seconds)}; they write {size(found.bytes_per_second)} per second"
    )


def print_plan(settings: Settings, parts: int, as_json: bool) -> None:
    """Measures, prints, and raises StoreError if the disk cannot hold it."""
    from transformers.utils import logging

    from harvest.estimate import estimate
    from harvest.room import refuse_too_large

    logging.disable_progress_bar()
    expected = estimate(settings, parts)
    if as_json:
        print(json.dumps(asdict(expected), indent=2))
    else:
        _print(expected, settings.store.codec)
    refuse_too_large(Path(expected.store), expected.bytes or 0)


def _print(expected: Estimate, codec: str) -> None:
    out = Console(highlight=False, soft_wrap=True)
    speed = expected.rows_per_second
    rate = "" if speed is None else f" at {speed:,.0f} rows/s on this machine"
    if expected.rows is None or expected.bytes is None or expected.tokens is None:
        out.print(
            f"{expected.store}: size not known ahead: the corpus does not say how many documents "
            f"it has; give harvest.rows or corpus.limit{rate}",
            markup=False,
        )
    else:
        tokens = ", ".join(f"{name} {count:,}" for name, count in expected.tokens.items())
        time = "" if expected.seconds is None else f", {duration(expected.seconds)}"
        out.print(
            f"{expected.store}: about {expected.rows:,} rows of {expected.documents:,} documents, "
            f"{size(expected.bytes)}{time}{rate}",
            markup=False,
        )
        out.print(f"tokens read: {tokens}")
        out.print(_table(expected, codec))
    out.print(f"free disk space there: {size(expected.free_bytes)}")
    out.print(paired(expected.paired_fraction))
    out.print(f"padding: {expected.padding_fraction:.1%} of the positions that are computed")
    if expected.left_out:
        out.print(left_out(expected.left_out) + f" (in {expected.sample_documents} documents)")


def _table(expected: Estimate, codec: str) -> Table:
    """Bytes on disk per hookpoint and codec; the codec of the configuration is marked."""
    costs = expected.hookpoint_bytes or {}
    table = Table(box=None, pad_edge=False)
    table.add_column("hookpoint", overflow="fold")
    codecs = list(next(iter(costs.values())))
    for name in codecs:
        table.add_column(f"{name} (store.codec)" if name == codec else name, justify="right")
    for hookpoint, by_codec in costs.items():
        table.add_row(hookpoint, *(size(by_codec[name]) for name in codecs))
    return table
