"""`train run`, and where the other commands of `train` hang."""

from __future__ import annotations

import json
from pathlib import Path
from threading import Timer
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.command import (
    CheckOption,
    ConfigOption,
    JsonOption,
    SetOption,
    StoreOption,
    make_app,
    next_command,
    note,
    progress_bar,
    read_config,
)
from pipeline.command import run as run_app
from pipeline.config import Config, describe
from pipeline.errors import ConfigError
from pipeline.time_limit import stops_in_time
from train import live_cli, summary
from train.config import TrainConfig
from train.dictionary.pairs import refuse_unpaired
from train.dictionary.partition import check_exclusive
from train.formats.cli import export, import_
from train.hub_cli import push
from train.interrupt import sigterm_raises
from train.memory import training_memory
from train.one_voice import one_voice
from train.plan_cli import measured, plan
from train.recipes.presets import planned
from train.slurm import adopt_slurm_step
from train.status_cli import status

if TYPE_CHECKING:  # importing torch would make --help slow
    from train.loop import TrainedDictionary
    from train.ranks import Ranks
    from train.source import RowSource, StoreRows

FIRST_WINDOW = "reading the first window"

app = make_app("Train crosscoders and DFCs on an activation store; bring others in and out.")


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
    fresh: Annotated[
        bool,
        typer.Option(
            "--fresh",
            help="Start over: remove what an earlier run has left in the folder, once everything "
            "else has been checked (default: off: go on with it).",
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Say rows, bytes and time; write nothing (default: off)."),
    ] = False,
    check: CheckOption = False,
    as_json: JsonOption = False,
) -> None:
    """Trains a dictionary, or goes on with one that was interrupted.

    Ctrl-C and SIGTERM end it within seconds, with a checkpoint; the same command goes on from it.
    """
    if live and store is not None:
        raise ConfigError(f"--live: trains without a store, but --store names {store}; drop one")
    settings = read_config(config, set_)
    section = settings.section("train", TrainConfig)
    if live:
        live_cli.refuse_residuals(section)
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
        expected = expected or measured(store_path, section, folder)
        summary.print_plan(expected, section, as_json)
        return
    adopt_slurm_step()
    with one_voice(), sigterm_raises(), stops_in_time(), training_memory(section):
        if live:
            _refuse_several_processes()
            done = None if fresh else live_cli.already_finished(settings, section, folder)
            trained = done or _train_live(settings, section, folder, fresh)
        else:
            trained = _train_on_store(store_path, section, folder, fresh)
    if not trained:  # another process speaks
        return
    if as_json:
        print(json.dumps([summary.as_json(entry) for entry in trained], indent=2))
        return
    for entry in trained:
        print(summary.summary(entry))
    if live:
        print(live_cli.what_next(config, set_, out))
        return
    elsewhere = store is not None or out is not None
    places = {"store": store_path, "dictionary": folder, "out": folder.parent}
    print("next:", next_command("analyze report", config, set_, **places if elsewhere else {}))


app.command("plan")(plan)
app.command("status")(status)
app.command("import")(import_)
app.command("export")(export)
app.command("push")(push)


def _check_models(settings: Config, section: TrainConfig) -> None:
    """Raises ConfigError for dictionaries that the configuration's models, if any, do not allow."""
    models = tuple(settings.models) if settings.raw.get("models") else ()
    for one in planned(section):
        if models and one.partition == "dedicated":
            check_exclusive(models, one.config.exclusive)
        if models and one.config.residual and one.config.hookpoints is None:
            refuse_unpaired(models)


def _refuse_several_processes() -> None:
    from train.ranks import started_together

    if started_together():
        raise ConfigError("--live: one process trains on live rows; run it without torchrun")


def _train_on_store(
    path: Path, section: TrainConfig, folder: Path, fresh: bool
) -> list[TrainedDictionary]:
    """Trains beside the processes, if any, that torchrun has started with this one."""
    from train.ranks import connected

    with connected() as ranks:
        source = _open_store(path, section, ranks)
        return _train(source, section, folder, FIRST_WINDOW, fresh, ranks)


def _open_store(path: Path, section: TrainConfig, ranks: Ranks) -> StoreRows:
    """The rows of a store; rank 0 says what it lacks, or what this machine lacks for it."""
    from store.completeness import require_complete
    from store.reader import Store
    from train.device import memory_bytes
    from train.source import StoreRows

    store = Store(path)
    if ranks.main or not section.incomplete_store:
        require_complete(store, section.incomplete_store, "train.incomplete_store")
    source = StoreRows(store, section, ranks)
    if section.batch_rows > source.rows_per_epoch and ranks.main:
        note(
            f"a batch of {section.batch_rows:,} rows is more than the "
            f"{source.rows_per_epoch:,} that there are to train on; lower train.batch_rows"
        )
    needed, memory = source.memory_bytes, memory_bytes()
    if needed > memory and ranks.main:
        note(
            f"the loader shuffles over {needed / 1e9:,.1f} GB at a time and this "
            f"machine has {memory / 1e9:,.1f} GB: it would read the disk at random; "
            "lower train.window_chunks"
        )
    return source


def _train_live(
    settings: Config, section: TrainConfig, folder: Path, fresh: bool
) -> list[TrainedDictionary]:
    with live_cli.rows(settings, section) as source:
        from train.ranks import ALONE

        return _train(source, section, folder, "filling the buffer", fresh, ALONE)


def _train(
    source: RowSource,
    section: TrainConfig,
    folder: Path,
    at_first: str,
    fresh: bool,
    ranks: Ranks,
) -> list[TrainedDictionary]:
    """Trains beside a progress bar, which says `at_first` until the first step is done."""
    from train.loop import train_on

    if not ranks.main:
        return train_on(source, section, folder, fresh=fresh, ranks=ranks)
    with progress_bar("rows") as bar:
        rows = section.steps * section.batch_rows
        task = bar.add_task("train", total=rows, note=at_first, visible=False)
        # Whatever is refused is refused before this, and then there is no bar beside its line.
        patience = Timer(2, lambda: bar.update(task, visible=True))

        def show(done: int, note: str) -> None:
            bar.update(task, completed=done * section.batch_rows, note=note, visible=True)

        patience.start()
        try:
            return train_on(source, section, folder, show, fresh, ranks)
        finally:
            patience.cancel()


def main() -> None:
    """Console entry point."""
    run_app(app)
