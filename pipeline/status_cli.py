"""`pipeline status`."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.command import ConfigOption, JsonOption, SetOption, next_command, read_config
from pipeline.files import FileArgument, chosen_file
from pipeline.slurm.queue import queue
from pipeline.slurm.submit import read_jobs
from pipeline.stages import STAGES, stage_states
from pipeline.status import Line, lines_of, what_next
from pipeline.wording import duration


def status(
    file: FileArgument = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    logs: Annotated[
        bool, typer.Option("--logs/--no-logs", help="Show the last line of each job's log.")
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """One table of every stage and task: state, progress, rate, time left, and what to run next.

    From the run's files, wherever they are seen; with Slurm, also what its queue says. Works while
    jobs run and after. Outdated is what was made from other settings or data than there are now.
    """
    chosen = chosen_file(file, config)
    settings = read_config(chosen, set_)
    states = stage_states(settings, STAGES, chosen, set_ or [])
    submitted = read_jobs(settings.run_dir)
    queued = queue(sorted({job.job for job in submitted}))
    lines = lines_of(states, submitted, queued)
    command = partial(next_command, file=chosen, overrides=set_)
    following = what_next(states, lines, command, bool(submitted))
    if as_json:
        value = {
            "run_dir": str(settings.run_dir),
            "stages": {name: state.state for name, state in states.items()},
            "units": [asdict(line) for line in lines],
            "slurm": queued is not None and bool(submitted),
            "next": following,
        }
        print(json.dumps(value, indent=2))
        return
    _print(lines, logs)
    if submitted and queued is None:
        print("the queue does not answer here; jobs may be waiting or running")
    print(f"next: {following}")


def _print(lines: list[Line], logs: bool) -> None:
    queues = any(line.queue or line.job for line in lines)
    table = Table(box=None, pad_edge=False)
    names = ["stage", "what", "state", *(["job", "queue"] if queues else [])]
    for name in names:
        table.add_column(name, overflow="fold")
    for name in ("done", "of", "rate", "left", "said"):
        table.add_column(name, justify="right", no_wrap=True)
    stage = None
    for line in lines:
        cells = [line.stage if line.stage != stage else "", escape(line.unit.name), line.unit.state]
        if queues:
            cells += [line.job or "", line.queue or ""]
        table.add_row(*cells, *_figures(line))
        stage = line.stage
    out = Console(highlight=False)
    out.print(table)
    for line in lines:
        if line.unit.reason:
            out.print(f"{line.stage} {line.unit.name}: {line.unit.reason}", markup=False)
    for line in lines if logs else []:
        if line.last:
            out.print(f"{line.job}: {line.last}", markup=False, soft_wrap=True)


def _figures(line: Line) -> list[str]:
    unit = line.unit
    return [
        "" if unit.done is None else f"{unit.done:,}",
        "" if unit.of is None else f"{unit.of:,} {unit.unit}",
        "" if unit.rate is None else f"{unit.rate:,.0f} rows/s",
        "" if unit.seconds_left is None else duration(unit.seconds_left),
        "" if unit.silent_seconds is None else f"{duration(unit.silent_seconds)} ago",
    ]
