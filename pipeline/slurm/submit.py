"""Puts the stages of a run into a cluster's queue, and keeps what was submitted.

RUN_DIR/slurm holds all of it: the scripts, the configuration as it was (with every --set), the
logs, and jobs.json. What is complete is not submitted again; of a harvest, missing tasks are.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.slurm.config import SlurmConfig
from pipeline.slurm.queue import SlurmError, live, queue, submit
from pipeline.slurm.scripts import Job, Setting, jobs_of
from pipeline.stages import Stage, StageState
from pipeline.wording import number_ranges

FOLDER, JOBS, CONFIG, LOGS = "slurm", "jobs.json", "config.yaml", "logs"


@dataclass(frozen=True)
class Submitted:
    """A job in the queue: its number, script and log (with %a in place of a task's number).

    tasks: of an array, those that were submitted; empty for a job of its own. time: Unix time.
    """

    name: str
    stage: str
    job: int
    tasks: list[int]
    script: str
    log: str
    time: float


@dataclass(frozen=True)
class Planned:
    """A job to submit; tasks: as in Submitted; why_not: it is complete already, or queued."""

    job: Job
    script: Path
    tasks: list[int]
    why_not: str | None = None


def plan(
    settings: Config, stages: Sequence[Stage], states: Mapping[str, StageState]
) -> list[Planned]:
    """What would be submitted. Raises ConfigError."""
    section = settings.section("slurm", SlurmConfig)
    folder = settings.run_dir / FOLDER
    setting = Setting(
        work_dir=Path.cwd(),
        config=(folder / CONFIG).absolute(),
        logs=(folder / LOGS).absolute(),
        python=section.python or sys.executable,
        title=re.sub(r"[^\w.-]+", "-", settings.run_dir.name) or "run",
    )
    jobs = jobs_of(section, setting, [stage.name for stage in stages])
    _refuse_other_tasks(section, states.get("harvest"))
    pending = False  # what follows a stage that is done again is done again
    found = []
    for job in jobs:
        state = states[job.stage]
        complete = state.state == "complete" and not pending
        tasks = _tasks(job, state)
        pending = pending or not complete
        script = folder / f"{job.name}.sbatch"
        found.append(Planned(job, script, tasks, "complete" if complete else None))
    return found


def _refuse_other_tasks(section: SlurmConfig, harvest: StageState | None) -> None:
    begun = len(harvest.units) if harvest else 0
    if harvest and begun and begun != section.harvest.tasks and harvest.state != "complete":
        raise ConfigError(
            f"slurm.harvest.tasks: given {section.harvest.tasks}, but the store was begun with "
            f"{begun}; set it to {begun}"
        )


def _tasks(job: Job, state: StageState) -> list[int]:
    """Of an array, the tasks that are not complete."""
    if job.array is None:
        return []
    done = {unit.number for unit in state.units if unit.state == "complete"}
    return [task for task in range(job.array) if job.name != "harvest" or task not in done]


def write(settings: Config, planned: Sequence[Planned]) -> list[Path]:
    """Writes the scripts, and the configuration that they read; the files."""
    folder = settings.run_dir / FOLDER
    (folder / LOGS).mkdir(parents=True, exist_ok=True)
    config = folder / CONFIG
    text = yaml.safe_dump(settings.raw, sort_keys=False, allow_unicode=True)
    _replace(config, f"# {settings.source} as it was when the jobs were written.\n{text}")
    for one in planned:
        _replace(one.script, one.job.text)
        one.script.chmod(0o755)
    return [config, *(one.script for one in planned)]


def submit_all(settings: Config, planned: Sequence[Planned]) -> list[Submitted]:
    """Submits what is not complete, each job to begin when the ones before it have ended well.

    Raises SlurmError, with what was submitted noted, if Slurm refuses one, or if a job of one of
    the stages is in the queue already.
    """
    before = read_jobs(settings.run_dir)
    _refuse_queued(before, [one.job.stage for one in planned if one.why_not is None])
    after: list[int] = []
    done: list[Submitted] = []
    for one in planned:
        if one.why_not is not None:
            continue
        array = _array(one, settings)
        number = submit(one.script, after, array)
        log = settings.run_dir.absolute() / FOLDER / LOGS
        name = f"{one.job.name}-{number}{'' if one.job.array is None else '_%a'}.log"
        done.append(
            Submitted(
                one.job.name,
                one.job.stage,
                number,
                one.tasks,
                str(one.script),
                str(log / name),
                time.time(),
            )
        )
        after = [number]
        _write_jobs(settings.run_dir, [*before, *done])
    return done


def _array(one: Planned, settings: Config) -> str | None:
    """Tasks of an array that are submitted again; None for all, as the script says."""
    if one.job.array is None or len(one.tasks) == one.job.array:
        return None
    at_once = settings.section("slurm", SlurmConfig).harvest.at_once
    return number_ranges(one.tasks) + ("" if at_once is None else f"%{at_once}")


def _refuse_queued(before: Sequence[Submitted], stages: Sequence[str]) -> None:
    ours = {one.job: one for one in before if one.stage in stages}
    for queued in live(queue(list(ours)) or []):
        one = ours[queued.job]
        raise SlurmError(
            f"{one.stage} is in the queue already, as job {one.job} ({queued.state.lower()}); wait "
            f"for it, or `scancel {one.job}` first"
        )


def read_jobs(run_dir: Path) -> list[Submitted]:
    """What was submitted of a run, oldest first; nothing where that cannot be read."""
    try:
        found = json.loads((run_dir / FOLDER / JOBS).read_bytes())
        return [Submitted(**one) for one in found]
    except (OSError, ValueError, TypeError):
        return []


def _write_jobs(run_dir: Path, jobs: Sequence[Submitted]) -> None:
    value: list[dict[str, Any]] = [asdict(job) for job in jobs]
    _replace(run_dir / FOLDER / JOBS, json.dumps(value, indent=1))


def _replace(file: Path, text: str) -> None:
    temporary = file.with_name(file.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, file)
