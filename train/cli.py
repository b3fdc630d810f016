"""`train run`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.command import (
    ConfigOption,
    JsonOption,
    SetOption,
    console,
    make_app,
    progress_bar,
    read_config,
)
from pipeline.command import run as run_app
from pipeline.config import Config, describe
from train.config import TrainConfig

app = make_app("Train crosscoders and DFCs on an activation store.")


@app.callback()
def _commands() -> None:
    """Train crosscoders and DFCs on an activation store."""


@app.command(epilog=describe(TrainConfig, "train"))
def run(
    store: Annotated[
        Path | None,
        typer.Option("--store", help="The store (default: RUN_DIR/store.zarr of the config)."),
    ] = None,
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
    check: Annotated[
        bool, typer.Option("--check", help="Only validate the configuration (default: off).")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Trains a dictionary, or goes on with one that was interrupted."""
    settings = read_config(config, set_)
    section = settings.section("train", TrainConfig)
    if check:
        return
    store_path = store or settings.store_path
    folder = out or settings.dictionary_path
    if dry_run:
        _print_plan(store_path, section, folder, as_json)
    else:
        _train(settings, store_path, section, folder, as_json)


def _train(
    settings: Config, store_path: Path, section: TrainConfig, folder: Path, as_json: bool
) -> None:
    from store.reader import Store
    from train.loop import train

    store = Store(store_path)
    if not store.complete:
        console.print(
            f"[yellow]note:[/] {store_path} is not complete; training on its {store.rows:,} rows"
        )
    with progress_bar("rows") as bar:
        rows = section.steps * section.batch_rows
        task = bar.add_task("train", total=rows, note="", visible=False)

        def show(done: int, note: str) -> None:
            bar.update(task, completed=done * section.batch_rows, note=note, visible=True)

        trained = train(store, section, folder, show)
    if as_json:
        print(json.dumps([_as_json(entry) for entry in trained], indent=2))
        return
    for entry in trained:
        fve = ", ".join(f"{name} {value:.3f}" for name, value in entry.validation.fve.items())
        print(
            f"{entry.folder}: {entry.recipe}: held-out FVE {fve}; L0 {entry.validation.l0:.1f}; "
            f"dead {entry.dead_fraction:.1%}"
        )
    print(f"next: analyze norms --store {store_path} --dictionary {folder}")


def _as_json(entry: Any) -> dict[str, Any]:
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


def main() -> None:
    """Console entry point."""
    run_app(app)
