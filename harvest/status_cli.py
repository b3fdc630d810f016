"""`harvest status`: how far each task is."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from pipeline.command import ConfigOption, JsonOption, SetOption, next_command, read_config
from pipeline.config import Config
from pipeline.wording import duration

if TYPE_CHECKING:
    from harvest.status import HarvestStatus, TaskStatus

StoreArgument = Annotated[
    Path | None,
    typer.Argument(metavar="[STORE]", help="The store (default: RUN_DIR/store.zarr)."),
]


def status(
    store: StoreArgument = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Rows of each task's part, whether it is complete, its rate and the time it still takes.

    Works while tasks run, on any machine that sees the store. A task that has said nothing for two
    minutes counts as stopped; `harvest run` with its number goes on.
    """
    from harvest.status import status as read_status

    if store is None:
        settings = read_config(config, set_)
        found = replace(read_status(settings.store_path), reason=_reason(settings))
    else:
        found = read_status(store)
    if as_json:
        print(json.dumps(asdict(found), indent=2))
    else:
        more = "" if store is None else ", with the configuration that this store was begun with"
        _print(found, config, set_, more)
        if found.reason:
            print(f"outdated: {found.reason}")


def _reason(settings: Config) -> str | None:
    """In what the store differs from what the configuration asks for."""
    from harvest.settings import Settings
    from harvest.setup import begun_with_others
    from store.reader import Store

    if not (settings.raw.get("models") and settings.raw.get("corpus")):
        return None
    return begun_with_others(Settings.read(settings), Store(settings.store_path))


def _print(
    found: HarvestStatus, config: Path | None, overrides: list[str] | None, with_what: str
) -> None:
    out = Console(highlight=False)
    table = Table(box=None, pad_edge=False)
    table.add_column("task", justify="right")
    table.add_column("state")
    for name in ("rows", "of about", "rows/s", "left", "said"):
        table.add_column(name, justify="right", no_wrap=True)
    for task in found.tasks:
        table.add_row(*_cells(task))
    out.print(table)
    rows = f"{found.rows:,} rows"
    if found.rows_expected:
        rows += f" of about {found.rows_expected:,} ({found.rows / found.rows_expected:.0%})"
    if found.complete:
        out.print(f"{found.store}: complete, {found.rows:,} rows", markup=False, soft_wrap=True)
        return
    speed = "" if found.rows_per_second is None else f", {found.rows_per_second:,.0f} rows/s"
    left = "" if found.seconds_left is None else f", {duration(found.seconds_left)} left"
    out.print(f"{found.store}: {rows}{speed}{left}", markup=False, soft_wrap=True)
    idle = [task.task for task in found.tasks if task.state in ("stopped", "not begun")]
    if idle:
        more = f" (and {len(idle) - 1} more)" if len(idle) > 1 else ""
        which = "" if len(found.tasks) == 1 else f" --task {idle[0]} --of {len(found.tasks)}"
        again = next_command(f"harvest run{which}", config, overrides)
        out.print(f"next: {again}{more}{with_what}", markup=False, soft_wrap=True)


def _cells(task: TaskStatus) -> list[str]:
    return [
        str(task.task),
        task.state,
        f"{task.rows:,}",
        "" if task.rows_expected is None else f"{task.rows_expected:,}",
        "" if task.rows_per_second is None else f"{task.rows_per_second:,.0f}",
        "" if task.seconds_left is None else duration(task.seconds_left),
        "" if task.silent_seconds is None else f"{duration(task.silent_seconds)} ago",
    ]
