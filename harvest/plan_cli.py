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
    as_json: JsonOption = False,
) -> None:
    """Says what a harvest would write and take, from a sample and a short measured pass.

    Exits with code 1 if the disk cannot hold it.
    """
    from harvest.settings import Settings
    from harvest.tasks import Task

    settings = Settings.read(read_config(config, set_))
    settings.check_files()
    print_plan(settings, Task.read(0 if of else None, of).of, as_json)


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
