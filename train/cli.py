"""`train run`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from threading import Timer
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from pipeline.command import (
    CheckOption,
    ConfigOption,
    JsonOption,
    SetOption,
    StoreOption,
    console,
    make_app,
    next_command,
    progress_bar,
    read_config,
)
from pipeline.command import run as run_app
from pipeline.config import describe
from train.config import TrainConfig
from train.partition import check_exclusive

if TYPE_CHECKING:  # importing torch would make --help slow
    from train.loop import TrainedDictionary

app = make_app("Train crosscoders and DFCs on an activation store.")


@app.callback()
def _commands() -> None:
    """Train crosscoders and DFCs on an activation store."""


@app.command(epilog=describe(TrainConfig, "train"))
def run(
    store: StoreOption = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Where to write (default: RUN_DIR/dictionary of the config)."),
    ] = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Say rows, bytes and time; write nothing (default: off)."),
    ] = False,
    check: CheckOption = False,
    as_json: JsonOption = False,
) -> None:
    """Trains a dictionary, or goes on with one that was interrupted."""
    settings = read_config(config, set_)
    section = settings.section("train", TrainConfig)
    if check:
        if store is None and "dfc" in section.recipes and settings.raw.get("models"):
            check_exclusive(tuple(settings.models), section.exclusive)
        return
    store_path = store or settings.store_path
    folder = out or settings.dictionary_path
    if dry_run:
        _print_plan(store_path, section, folder, as_json)
    else:
        trained = _train(store_path, section, folder)
        if as_json:
            print(json.dumps([_as_json(entry) for entry in trained], indent=2))
            return
        for entry in trained:
            print(_summary(entry))
        elsewhere = store is not None or out is not None
        places = {"store": store_path, "dictionary": folder, "out": folder.parent}
        print("next:", next_command("analyze report", config, set_, **places if elsewhere else {}))


def _train(store_path: Path, section: TrainConfig, folder: Path) -> list[TrainedDictionary]:
    from store.reader import Store
    from store.window import window_bytes
    from train.loop import train

    store = Store(store_path)
    if not store.complete:
        missing = ", ".join(map(str, store.missing_parts))
        without = f" (no part {missing} of {store.schema.parts})" if missing else ""
        console.print(
            f"[yellow]note:[/] {escape(str(store_path))} is not complete{without}; "
            f"training on its {store.rows:,} rows",
            soft_wrap=True,
        )
    needed = window_bytes(store, section.window_chunks)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > memory:
        console.print(
            f"[yellow]note:[/] the loader shuffles over {needed / 1e9:,.1f} GB at a time and this "
            f"machine has {memory / 1e9:,.1f} GB: it would read the disk at random; "
            "lower train.window_chunks",
            soft_wrap=True,
        )
    with progress_bar("rows") as bar:
        rows = section.steps * section.batch_rows
        task = bar.add_task("train", total=rows, note="reading the first window", visible=False)
        # Whatever is refused is refused before this, and then there is no bar beside its line.
        patience = Timer(2, lambda: bar.update(task, visible=True))

        def show(done: int, note: str) -> None:
            bar.update(task, completed=done * section.batch_rows, note=note, visible=True)

        patience.start()
        try:
            return train(store, section, folder, show)
        finally:
            patience.cancel()


def _summary(entry: TrainedDictionary) -> str:
    """One line on a trained dictionary."""
    validation = entry.validation
    if validation.l0 is None:
        held_out = "no held-out rows"
    else:
        fve = ", ".join(
            f"{name} (no variance)" if value is None else f"{name} {value:.3f}"
            for name, value in validation.fve.items()
        )
        held_out = f"held-out FVE {fve}; L0 {validation.l0:.1f}"
    return f"{entry.folder}: {entry.recipe}: {held_out}; dead {entry.dead_fraction:.1%}"


def _as_json(entry: TrainedDictionary) -> dict[str, Any]:
    return {
        "recipe": entry.recipe,
        "folder": str(entry.folder),
        "fve": entry.validation.fve,
        "l0": entry.validation.l0,
        "dead_fraction": entry.dead_fraction,
    }


def _print_plan(store_path: Path, section: TrainConfig, folder: Path, as_json: bool) -> None:
    from store.reader import Store
    from train.plan import plan

    result = plan(Store(store_path), section, folder)
    if as_json:
        print(json.dumps({**vars(result), "folder": str(folder)}, indent=2))
        return
    print(
        f"would train {', '.join(section.recipes)} for {section.steps:,} steps of "
        f"{section.batch_rows:,} rows = {result.rows_trained:,} rows "
        f"({result.epochs:.1f} epochs of {result.rows_per_epoch:,})"
    )
    print(
        f"{result.parameters:,} parameters; about {result.checkpoint_bytes / 1e6:,.0f} MB "
        f"under {folder}; about {result.seconds / 60:,.1f} minutes here"
    )
    print(f"the loader shuffles over {result.window_bytes / 1e9:,.1f} GB of memory at a time")


def main() -> None:
    """Console entry point."""
    run_app(app)
