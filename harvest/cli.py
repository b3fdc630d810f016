"""`harvest run`, and what helps to prepare and to watch it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harvest.align_cli import align
from harvest.config import HarvestConfig
from harvest.modules_cli import modules_
from harvest.plan_cli import OfOption, plan, print_plan
from harvest.status_cli import status
from harvest.wording import left_out, paired
from pipeline.command import (
    ConfigOption,
    JsonOption,
    SetOption,
    make_app,
    next_command,
    read_config,
    run,
)
from pipeline.config import describe
from pipeline.errors import ConfigError
from pipeline.specs import CorpusSpec, ModelSpec
from pipeline.time_limit import stops_in_time
from store.config import StoreConfig

if TYPE_CHECKING:
    from harvest.run import HarvestSummary
    from harvest.settings import Settings
    from harvest.tasks import Task

app = make_app("Reads a corpus with every model and writes aligned activations to a store.")

DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="The same as `harvest plan`: say what it would do (default: off)."
    ),
]
Check = Annotated[
    bool,
    typer.Option(
        "--check", help="Only validate the configuration and look for its files (default: off)."
    ),
]
TaskOption = Annotated[
    int | None,
    typer.Option(
        "--task",
        help="Which of several tasks this is, from 0 (default: the index in a Slurm job array, "
        "or 0). Each owns the documents that a hash gives it and writes its own part.",
    ),
]
KEYS = "\n\n".join(
    [
        describe(HarvestConfig, "harvest"),
        describe(CorpusSpec, "corpus"),
        describe(ModelSpec, "models.NAME"),
        describe(StoreConfig, "store"),
    ]
)


@app.command("run", epilog=KEYS)
def run_(
    config: ConfigOption = None,
    set_: SetOption = None,
    task: TaskOption = None,
    of: OfOption = None,
    fresh: Annotated[
        bool,
        typer.Option(
            "--fresh",
            help="Remove the store that an earlier run has left and begin anew (default: off: go "
            "on with it).",
        ),
    ] = False,
    dry_run: DryRun = False,
    check: Check = False,
    as_json: JsonOption = False,
) -> None:
    """Harvests, or continues a harvest that was interrupted.

    Ctrl-C and SIGTERM commit what is done and end with code 130 or 143; the same command goes on.
    """
    from harvest.settings import Settings
    from harvest.tasks import Task

    settings = Settings.read(read_config(config, set_))
    share = Task.read(task, of)
    settings.check_files()
    if check:
        return
    if dry_run:
        print_plan(settings, share.of, as_json)
        return
    if fresh:
        _remove(settings, share)
    summary = _harvest(settings, share)
    if as_json:
        print(json.dumps(asdict(summary), indent=2))
    else:
        print(_done(summary, settings.harvest.rows, config, set_))


app.command("plan", epilog=KEYS)(plan)
app.command("status")(status)
app.command("align")(align)
app.command("modules")(modules_)


def _remove(settings: Settings, task: Task) -> None:
    """The store, and what its tasks have said of themselves. Raises ConfigError, StoreError."""
    from harvest.progress import progress_path
    from store.remove import remove_store

    if task.of > 1:
        raise ConfigError(
            f"--fresh --of {task.of}: a task of several does not remove what the others have "
            f"written; delete {settings.path} first, then run every task"
        )
    remove_store(settings.path)
    for file in progress_path(settings.path, 0).parent.glob(f"{settings.path.name}-*.json"):
        file.unlink(missing_ok=True)


def _harvest(settings: Settings, task: Task) -> HarvestSummary:
    """Harvests; a signal that ended it becomes the exit code that says so."""
    from transformers.utils import logging

    from harvest.run import harvest
    from harvest.stopping import Stopped

    logging.disable_progress_bar()
    try:
        with stops_in_time():
            return harvest(settings, task)
    except Stopped as stopped:
        raise SystemExit(stopped.exit_code) from None


def _done(
    summary: HarvestSummary, wanted: int | None, config: Path | None, overrides: list[str] | None
) -> str:
    speed = summary.rows_per_second
    state = "was already complete" if speed is None else f"{speed:,.0f} rows/s in this run"
    lines = [
        f"{summary.store}: {summary.rows:,} rows of {summary.documents:,} documents, "
        f"{summary.bytes / 1e6:,.1f} MB; {state}",
        paired(summary.paired_fraction),
    ]
    if wanted is not None and summary.rows < wanted and not summary.missing:
        lines.append(
            f"fewer than the {wanted:,} of harvest.rows: the corpus, or a task's share of it, does "
            "not have more"
        )
    if summary.left_out:
        lines.append(left_out(summary.left_out))
    if summary.missing:
        tasks = ", ".join(map(str, summary.missing))
        lines.append(f"not complete: tasks {tasks}")
        lines.append(f"next: {next_command(f'harvest status {summary.store}', None, None)}")
    else:
        lines.append(f"next: {next_command('train run', config, overrides)}")
    return "\n".join(lines)


def main() -> None:
    """Console entry point."""
    run(app)
