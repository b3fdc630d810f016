"""Where every stage and task of a run stands: from its files, and from Slurm's queue."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.slurm.queue import LIVE, Queued
from pipeline.slurm.submit import Submitted
from pipeline.stages import STAGES, StageState, Unit

TAIL_BYTES = 1 << 14
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


@dataclass(frozen=True)
class Line:
    """A unit of a stage. state: of the files; job, queue: what Slurm says, if it says something.

    last: the last line of the job's log.
    """

    stage: str
    unit: Unit
    job: str | None = None
    queue: str | None = None
    last: str | None = None


def lines_of(
    states: Mapping[str, StageState],
    submitted: Sequence[Submitted],
    queued: Sequence[Queued] | None,
) -> list[Line]:
    """A line per unit, in the order of the stages; stages without one have a line of their own."""
    found = []
    for stage in STAGES:
        if stage.name not in states:
            continue
        state = states[stage.name]
        for unit in state.units or [Unit("", state.state, reason=state.reason)]:
            found.append(_line(stage.name, unit, submitted, queued))
        if stage.name == "analyze" and state.state != "complete":
            found += _sweep(state, submitted, queued)
    return found


def _sweep(
    state: StageState, submitted: Sequence[Submitted], queued: Sequence[Queued] | None
) -> list[Line]:
    """The array of `analyze sweep`, if there is one: its tasks leave no state but in the queue."""
    job = next((one for one in reversed(submitted) if one.name == "sweep"), None)
    if job is None:
        return []
    tasks = Counter(_queue_state(one) for one in queued or [] if one.job == job.job)
    said = ", ".join(f"{count} {name}" for name, count in tasks.items()) or None
    logs = [log for task in job.tasks if (log := _log(job, task)).exists()]
    newest = max(logs, key=lambda log: log.stat().st_mtime, default=None)
    last = None if newest is None else last_line(newest)
    return [Line("analyze", Unit("sweep", state.state), str(job.job), said, last)]


def _line(
    stage: str, unit: Unit, submitted: Sequence[Submitted], queued: Sequence[Queued] | None
) -> Line:
    job = _job_of(stage, unit, submitted)
    if job is None:
        return Line(stage, unit)
    task = unit.number if job.tasks else None
    here = [
        one for one in queued or [] if one.job == job.job and (task is None or one.task == task)
    ]
    said = _queue_state(here[0]) if here else None
    number = str(job.job) if task is None else f"{job.job}_{task}"
    return Line(stage, unit, number, said, last_line(_log(job, task)))


def _log(job: Submitted, task: int | None) -> Path:
    folder, slash, name = job.log.rpartition("/")
    return Path(folder + slash + name.replace("%a", str(task)))


def _job_of(stage: str, unit: Unit, submitted: Sequence[Submitted]) -> Submitted | None:
    """The last job that was submitted for it; of the analysis, its report's."""
    for job in reversed(submitted):
        if job.stage == stage and job.name != "sweep" and unit.number in (job.tasks or [0]):
            return job
        if job.stage == stage and stage == "train":
            return job
    return None


def _queue_state(queued: Queued) -> str:
    why = queued.reason if queued.reason not in ("None", "") else ""
    if queued.state == "PENDING" and why:
        return f"pending ({why})"
    return queued.state.lower()


def last_line(log: Path) -> str | None:
    """The last line of a log that says something, as a terminal would show it."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return None
    lines = [
        ESCAPES.sub("", line.rstrip("\r").rsplit("\r", 1)[-1]).strip() for line in text.split("\n")
    ]
    said = [line for line in lines if line]
    return said[-1] if said else None


def what_next(
    states: Mapping[str, StageState],
    lines: Sequence[Line],
    command: Callable[[str], str],
    submitted: bool,
) -> str:
    """What to run next. command: adds the options that `pipeline status` was given."""
    waiting = any(line.queue is not None and _alive(line.queue) for line in lines)
    waiting |= any(line.unit.name == "sweep" and line.queue is not None for line in lines)
    if waiting or any(state.state == "running" for state in states.values()):
        return f"wait; then {command('pipeline status')}"
    for stage in STAGES:
        state = states.get(stage.name)
        if state is None or state.state == "complete":
            continue
        if state.state == "outdated":
            return command(f"pipeline run --from {stage.name} --force {stage.name}")
        return command(f"pipeline {'submit' if submitted else 'run'} --from {stage.name}")
    return "nothing: all stages are complete"


def _alive(queue: str) -> bool:
    return queue.split(" ")[0].upper() in LIVE
