"""`train status`: how far each dictionary is."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from pipeline.command import (
    ConfigOption,
    JsonOption,
    SetOption,
    StoreOption,
    next_command,
    read_config,
)
from pipeline.wording import duration
from train.config import TrainConfig

if TYPE_CHECKING:  # importing torch would make --help slow
    from train.status import DictionaryStatus, TrainStatus


def status(
    store: StoreOption = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Where it is written (default: RUN_DIR/dictionary)."),
    ] = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Steps of each dictionary, its rate and the time it still takes; from the run's files alone.

    Complete is one that was trained to its end with this configuration on this store; outdated one
    that was made from another, and says what differs. A run that has said nothing for long is dead;
    the same `train run` goes on.
    """
    from train.status import status as read_status

    settings = read_config(config, set_)
    section = settings.section("train", TrainConfig)
    folder = out or settings.dictionary_path
    found = read_status(section, folder, store or settings.store_path)
    if as_json:
        print(json.dumps(asdict(found), indent=2))
        return
    _print(found)
    if not found.complete:
        print("next:", next_command("train run", config, set_, store=store, out=out))
        return
    elsewhere = store is not None or out is not None
    places = {"store": store or settings.store_path, "dictionary": folder, "out": folder.parent}
    print("next:", next_command("analyze report", config, set_, **places if elsewhere else {}))


def _print(found: TrainStatus) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("dictionary", overflow="fold")
    table.add_column("state")
    for name in ("step", "of", "saved", "rows/s", "left", "said"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in found.dictionaries:
        table.add_row(*_cells(one))
    out = Console(highlight=False)
    out.print(table)
    for one in found.dictionaries:
        if one.reason:
            out.print(f"{one.folder}: {one.reason}", markup=False, soft_wrap=True)


def _cells(one: DictionaryStatus) -> list[str]:
    return [
        one.folder,
        one.state,
        f"{one.step:,}",
        f"{one.steps:,}",
        f"{one.saved_step:,}",
        "" if one.rows_per_second is None else f"{one.rows_per_second:,.0f}",
        "" if one.seconds_left is None else duration(one.seconds_left),
        "" if one.silent_seconds is None else f"{duration(one.silent_seconds)} ago",
    ]
