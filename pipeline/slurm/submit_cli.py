"""`pipeline submit`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.syntax import Syntax

from pipeline.command import ConfigOption, JsonOption, SetOption, next_command, read_config
from pipeline.files import FileArgument, chosen_file
from pipeline.run import check_all
from pipeline.slurm.queue import SlurmError, queue
from pipeline.slurm.submit import (
    Planned,
    Submitted,
    earlier_jobs,
    plan,
    read_jobs,
    submit_all,
    write,
)
from pipeline.stages import STAGES, chosen_stages, stage_states
from pipeline.wording import number_ranges


def submit(
    file: FileArgument = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    stages: Annotated[
        str | None,
        typer.Option("--stages", help="Only these, with commas between: harvest,train,analyze."),
    ] = None,
    start: Annotated[
        str | None, typer.Option("--from", help="First stage to submit: harvest, train or analyze.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write and print the scripts, and submit nothing.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Puts the stages into a Slurm cluster's queue: one readable script per job in RUN_DIR/slurm.

    The harvest is a job array, training begins when all of it has ended well, and the analysis
    after that. What is complete is left out; of the harvest, only missing tasks are submitted. A
    job that comes near its time limit, or is preempted, saves its work and goes on when Slurm
    starts it again. Scripts may be edited and submitted by hand: sbatch RUN_DIR/slurm/train.sbatch.
    """
    chosen = chosen_file(file, config)
    settings = read_config(chosen, set_)
    names = [name.strip() for name in stages.split(",")] if stages else []
    wanted = chosen_stages(names, start)
    check_all(wanted, chosen, set_ or [])
    states = stage_states(settings, STAGES, chosen, set_ or [])
    before = read_jobs(settings.run_dir)
    queued = queue(sorted({one.job for one in before}))
    if queued is None and not dry_run:
        raise SlurmError("squeue: does not answer, so what is queued is not known; try again later")
    planned = plan(settings, wanted, states, before, queued or [])
    files = write(settings, planned)
    after = earlier_jobs(wanted, before, queued or [])
    submitted = [] if dry_run else submit_all(settings, planned, after)
    if as_json:
        value = {
            "files": [str(one) for one in files],
            "submitted": [asdict(one) for one in submitted],
            "left_out": {one.job.name: one.why_not for one in planned if one.why_not},
        }
        print(json.dumps(value, indent=2))
        return
    if dry_run:
        _print_scripts(planned)
    _say(planned, submitted, dry_run)
    print(f"written: {', '.join(str(one) for one in files)}")
    part = f" --stages {stages}" if stages else ""
    part += f" --from {start}" if start else ""
    following = f"pipeline submit{part}" if dry_run else "pipeline status"
    print("next:", next_command(following, chosen, set_))


def _print_scripts(planned: list[Planned]) -> None:
    out = Console()
    for one in planned:
        out.rule(str(one.script))
        out.print(Syntax(one.job.text, "bash", background_color="default", word_wrap=True))


def _say(planned: list[Planned], submitted: list[Submitted], dry_run: bool) -> None:
    numbers = {one.name: one.job for one in submitted}
    before = None
    for one in planned:
        name = one.job.name
        if one.why_not is not None:
            print(f"{name}: {one.why_not}; not submitted")
            continue
        tasks = f", tasks {number_ranges(one.tasks)}" if one.job.array is not None else ""
        after = "" if before is None else f", after {before}"
        before = name if dry_run else f"job {numbers[name]}"
        print(f"{name}: {'would be submitted' if dry_run else before}{tasks}{after}")
