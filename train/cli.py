"""`train run`."""

from __future__ import annotations

import json
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
from pipeline.config import Config, describe
from pipeline.errors import ConfigError
from train import live_cli
from train.config import TrainConfig
from train.dictionary.partition import check_exclusive

if TYPE_CHECKING:  # importing torch would make --help slow
    from train.loop import TrainedDictionary
    from train.plan import TrainPlan
    from train.source import RowSource, StoreRows

FIRST_WINDOW = "reading the first window"

app = make_app("Train crosscoders and DFCs on an activation store.")


@app.callback()
def _commands() -> None:
    """Train crosscoders and DFCs on an activation store."""


@app.command(epilog=describe(TrainConfig, "train"))
def run(
    store: StoreOption = None,
    live: Annotated[
        bool,
        typer.Option(
            "--live",
            help="Train without a store, on what the models give as they read the corpus, shuffled "
            "in memory; the models, corpus and harvest sections say what is read, over and over "
            "(harvest.rows does not count). An interrupted run goes on, but loses the rows that "
            "waited in memory (default: off).",
        ),
    ] = False,
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
    if live and store is not None:
        raise ConfigError(f"--live: trains without a store, but --store names {store}; drop one")
    settings = read_config(config, set_)
    section = settings.section("train", TrainConfig)
    if (check or live) and store is None:
        _check_models(settings, section)
    if check:
        if live:
            live_cli.check(settings)
        return
    store_path = store or settings.store_path
    folder = out or settings.dictionary_path
    if dry_run:
        expected = live_cli.plan(settings, section, folder) if live else None
        _print_plan(expected or _plan(store_path, section, folder), section, as_json)
        return
    if live:
        trained = live_cli.already_finished(settings, section, folder) or _train_live(
            settings, section, folder
        )
    else:
        trained = _train(_open_store(store_path, section), section, folder, FIRST_WINDOW)
    if as_json:
        print(json.dumps([_as_json(entry) for entry in trained], indent=2))
        return
    for entry in trained:
        print(_summary(entry))
    if live:
        print(live_cli.what_next(config, set_, out))
        return
    elsewhere = store is not None or out is not None
    places = {"store": store_path, "dictionary": folder, "out": folder.parent}
    print("next:", next_command("analyze report", config, set_, **places if elsewhere else {}))


def _check_models(settings: Config, section: TrainConfig) -> None:
    """Raises ConfigError for a share of a model that the configuration, if it has any, lacks."""
    if "dfc" in section.recipes and settings.raw.get("models"):
        check_exclusive(tuple(settings.models), section.exclusive)


def _open_store(path: Path, section: TrainConfig) -> StoreRows:
    """The rows of a store; says what it lacks, or what this machine lacks for it."""
    from store.reader import Store
    from train.device import memory_bytes
    from train.source import StoreRows

    store = Store(path)
    if not store.complete:
        missing = ", ".join(map(str, store.missing_parts))
        without = f" (no part {missing} of {store.schema.parts})" if missing else ""
        console.print(
            f"[yellow]note:[/] {escape(str(path))} is not complete{without}; "
            f"training on its {store.rows:,} rows",
            soft_wrap=True,
        )
    source = StoreRows(store, section)
    needed, memory = source.memory_bytes, memory_bytes()
    if needed > memory:
        console.print(
            f"[yellow]note:[/] the loader shuffles over {needed / 1e9:,.1f} GB at a time and this "
            f"machine has {memory / 1e9:,.1f} GB: it would read the disk at random; "
            "lower train.window_chunks",
            soft_wrap=True,
        )
    return source


def _train_live(settings: Config, section: TrainConfig, folder: Path) -> list[TrainedDictionary]:
    with live_cli.rows(settings, section) as source:
        return _train(source, section, folder, "filling the buffer")


def _train(
    source: RowSource, section: TrainConfig, folder: Path, at_first: str
) -> list[TrainedDictionary]:
    """Trains beside a progress bar, which says `at_first` until the first step is done."""
    from train.loop import train_on

    with progress_bar("rows") as bar:
        rows = section.steps * section.batch_rows
        task = bar.add_task("train", total=rows, note=at_first, visible=False)
        # Whatever is refused is refused before this, and then there is no bar beside its line.
        patience = Timer(2, lambda: bar.update(task, visible=True))

        def show(done: int, note: str) -> None:
            bar.update(task, completed=done * section.batch_rows, note=note, visible=True)

        patience.start()
        try:
            return train_on(source, section, folder, show)
        finally:
            patience.cancel()


def _summary(entry: TrainedDictionary) -> str:
    """One line on a trained dictionary, and one per hookpoint if they are many."""
    from train.track import FVE_IN_A_LINE

    validation = entry.validation
    begin, dead = f"{entry.folder}: {entry.recipe}", f"dead {entry.dead_fraction:.1%}"
    if validation.l0 is None:
        held_out = "no held-out rows"
    else:
        fve = [
            f"{name} (no variance)" if value is None else f"{name} {value:.3f}"
            for name, value in validation.fve.items()
        ]
        if len(fve) > FVE_IN_A_LINE:
            lines = "".join(f"\n  {one}" for one in fve)
            return f"{begin}: L0 {validation.l0:.1f}; {dead}; held-out FVE:{lines}"
        held_out = f"held-out FVE {', '.join(fve)}; L0 {validation.l0:.1f}"
    return f"{begin}: {held_out}; {dead}"


def _as_json(entry: TrainedDictionary) -> dict[str, Any]:
    return {
        "recipe": entry.recipe,
        "folder": str(entry.folder),
        "fve": entry.validation.fve,
        "l0": entry.validation.l0,
        "dead_fraction": entry.dead_fraction,
    }


def _plan(store_path: Path, section: TrainConfig, folder: Path) -> TrainPlan:
    from store.reader import Store
    from train.plan import plan
    from train.source import StoreRows

    return plan(StoreRows(Store(store_path), section), section, folder)


def _print_plan(expected: TrainPlan, section: TrainConfig, as_json: bool) -> None:
    if as_json:
        print(json.dumps({**vars(expected), "folder": str(expected.folder)}, indent=2))
        return
    per_epoch, trained = expected.rows_per_epoch, expected.rows_trained
    epochs = f" ({trained / per_epoch:.1f} epochs of {per_epoch:,})" if per_epoch else ""
    print(
        f"would train {', '.join(section.recipes)} for {section.steps:,} steps of "
        f"{section.batch_rows:,} rows = {trained:,} rows{epochs}"
    )
    harvest = (
        f", {expected.harvest_seconds / 60:,.1f} of them to harvest {expected.harvest_rows:,} rows"
        if expected.harvest_rows
        else ""
    )
    print(
        f"{expected.parameters:,} parameters; about {expected.checkpoint_bytes / 1e6:,.0f} MB "
        f"under {expected.folder}; about {expected.seconds / 60:,.1f} minutes here{harvest}"
    )
    print(f"the loader shuffles over {expected.shuffle_bytes / 1e9:,.1f} GB of memory at a time")


def main() -> None:
    """Console entry point."""
    run_app(app)
