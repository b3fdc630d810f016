"""`train plan`: rows, bytes and time, before a long job."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.assumptions import (
    AssumeRate,
    AssumeRows,
    AssumeWidth,
    Assumptions,
    read_assumptions,
)
from pipeline.command import ConfigOption, JsonOption, SetOption, StoreOption, read_config
from pipeline.wording import duration, size
from train import summary
from train.config import TrainConfig

if TYPE_CHECKING:  # importing torch would make --help slow
    from train.plan import TrainPlan


def plan(
    store: StoreOption = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Where it would be written (default: RUN_DIR/dictionary)."),
    ] = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    assume_rows: AssumeRows = None,
    assume_width: AssumeWidth = None,
    assume_rate: AssumeRate = None,
    as_json: JsonOption = False,
) -> None:
    """Says what a training run would write and take, from a few steps on the store.

    The same as `train run --dry-run`. With --assume-rows, --assume-width and --assume-rate (of all
    processes together) it computes it from these and the train section, before there is a store.
    """
    settings = read_config(config, set_)
    section = settings.section("train", TrainConfig)
    assumptions = read_assumptions(assume_rows, assume_width, assume_rate)
    if assumptions is not None:
        _print_assumed(section, assumptions, as_json)
        return
    expected = measured(store or settings.store_path, section, out or settings.dictionary_path)
    summary.print_plan(expected, section, as_json)


def measured(store: Path, section: TrainConfig, folder: Path) -> TrainPlan:
    """From a few steps on a store."""
    from store.reader import Store
    from train.plan import plan as measure
    from train.source import StoreRows

    return measure(StoreRows(Store(store), section), section, folder)


def _print_assumed(section: TrainConfig, given: Assumptions, as_json: bool) -> None:
    from train.assumed import assumed

    found = assumed(section, given.rows, given.widths, given.rate)
    if as_json:
        print(json.dumps(asdict(found), indent=2))
        return
    widths = ", ".join(f"{name} {width:,}" for name, width in given.widths.items())
    print(f"assumed: {found.rows:,} rows, widths {widths}, {given.rate:,.0f} rows/s in all")
    print(
        f"{found.rows_trained:,} rows in {section.steps:,} steps "
        f"({found.rows_trained / found.rows:.1f} epochs): {duration(found.seconds)}"
    )
    print(
        f"{found.parameters:,} parameters: {size(found.memory_bytes)} of memory per process for "
        f"weights, gradients and optimizer; {size(found.checkpoint_bytes)} of disk"
    )
