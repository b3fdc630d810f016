"""Puts the stages of a run into a cluster's queue, and keeps what was submitted.

RUN_DIR/slurm holds all of it: the scripts, the configuration as it was (with every --set), the
logs, and jobs.json. What is complete is not submitted again; of a harvest, missing tasks are.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.slurm.config import SlurmConfig
from pipeline.slurm.queue import Queued, SlurmError, live, submit
from pipeline.slurm.scripts import Job, Setting, jobs_of
from pipeline.stages import STAGES, Stage, StageState
from pipeline.wording import number_ranges

FOLDER, JOBS, LOGS, WRITTEN = "slurm", "jobs.json", "logs", "written.json"


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
    """A job to submit; tasks: as in Submitted; why_not: it is complete already, or queued.

    queued: jobs of its name in the queue, for which what follows waits as well.
    """

    job: Job
    script: Path
    tasks: list[int]
    why_not: str | None = None
    queued: list[int] = field(default_factory=list)


def plan(
    settings: Config,
    stages: Sequence[Stage],
    states: Mapping[str, StageState],
    before: Sequence[Submitted] = (),
    queued: Sequence[Queued] = (),
) -> list[Planned]:
    """What would be submitted. before, queued: what was, and what of it is in the queue still.

    Raises ConfigError, also for a stage that was begun with other settings.
    """
    section = settings.section("slurm", SlurmConfig)
    folder = settings.run_dir / FOLDER
    setting = Setting(
        work_dir=Path.cwd(),
        config=config_file(settings).absolute(),
        logs=(folder / LOGS).absolute(),
        python=section.python or sys.executable,
        title=re.sub(r"[^\w.-]+", "-", settings.run_dir.name) or "run",
    )
    for stage in stages:
        _refuse_outdated(states[stage.name])
    _refuse_other_tasks(section, states.get("harvest"))
    waiting = live(queued)
    pending = False  # what follows a stage that is done again is done again
    found = []
    for job in jobs_of(section, setting, [stage.name for stage in stages]):
        state = states[job.stage]
        complete = state.state == "complete" and not pending
        numbers = {one.job for one in before if one.name == job.name}
        there = [one for one in waiting if one.job in numbers]
        tasks = [n for n in _tasks(job, state) if n not in {one.task for one in there}]
        why_not = "complete" if complete else None
        if not complete and there and not tasks:
            why_not = f"in the queue, as job {', '.join(map(str, sorted({o.job for o in there})))}"
        pending = pending or not complete
        after = sorted({one.job for one in there})
        found.append(Planned(job, folder / f"{job.name}.sbatch", tasks, why_not, after))
    return found


def earlier_jobs(
    stages: Sequence[Stage], before: Sequence[Submitted], queued: Sequence[Queued]
) -> list[int]:
    """Jobs in the queue of stages that come before all of these: the first of them waits for it."""
    names = [stage.name for stage in STAGES]
    ahead = names[: names.index(stages[0].name)]
    ours = {one.job for one in before if one.stage in ahead}
    return sorted({one.job for one in live(queued) if one.job in ours})


def config_file(settings: Config) -> Path:
    """Where the configuration of such jobs lies: another one does not take its place."""
    digest = hashlib.sha256(_config_text(settings).encode()).hexdigest()[:12]
    return settings.run_dir / FOLDER / f"config-{digest}.yaml"


def _config_text(settings: Config) -> str:
    return yaml.safe_dump(settings.raw, sort_keys=False, allow_unicode=True)


def _refuse_outdated(state: StageState) -> None:
    if state.state == "outdated":
        raise ConfigError(
            f"{state.name}: {state.reason or 'was made with other settings'}; take another "
            f"run_dir, or make it anew: pipeline run --from {state.name} --force {state.name}"
        )


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
    """Writes the scripts, and the configuration that they read; the files.

    Raises SlurmError for a script that was edited since it was written.
    """
    folder = settings.run_dir / FOLDER
    (folder / LOGS).mkdir(parents=True, exist_ok=True)
    written = _written(folder)
    for one in planned:
        if one.script.exists() and written.get(one.script.name) != _digest(one.script.read_text()):
            raise SlurmError(
                f"{one.script}: was edited since it was written; submit it by hand (sbatch), or "
                "delete it to have it written again"
            )
    config = config_file(settings)
    _replace(config, _config_text(settings))
    for one in planned:
        _replace(one.script, one.job.text)
        one.script.chmod(0o755)
        written[one.script.name] = _digest(one.job.text)
    _replace(folder / WRITTEN, json.dumps(written, indent=1))
    return [config, *(one.script for one in planned)]


def _written(folder: Path) -> dict[str, str]:
    try:
        found = json.loads((folder / WRITTEN).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def submit_all(
    settings: Config, planned: Sequence[Planned], after: Sequence[int] = ()
) -> list[Submitted]:
    """Submits what is not complete, each job to begin when the ones before it have ended well.

    after: jobs that the first of them waits for. Raises SlurmError, with what was submitted noted,
    if Slurm refuses one.
    """
    before = read_jobs(settings.run_dir)
    log = settings.run_dir.absolute() / FOLDER / LOGS
    done: list[Submitted] = []
    for one in planned:
        if one.why_not is not None:
            after = one.queued or after
            continue
        number = submit(one.script, after, _array(one, settings))
        name = f"{one.job.name}-{number}{'' if one.job.array is None else '_%a'}.log"
        path, now = str(one.script), time.time()
        job = Submitted(one.job.name, one.job.stage, number, one.tasks, path, str(log / name), now)
        done.append(job)
        after = [*one.queued, number]
        _write_jobs(settings.run_dir, [*before, *done])
    return done


def _array(one: Planned, settings: Config) -> str | None:
    """Tasks of an array that are submitted again; None for all, as the script says."""
    if one.job.array is None or len(one.tasks) == one.job.array:
        return None
    at_once = settings.section("slurm", SlurmConfig).harvest.at_once
    return number_ranges(one.tasks) + ("" if at_once is None else f"%{at_once}")


def read_jobs(run_dir: Path) -> list[Submitted]:
    """What was submitted of a run, oldest first. Raises SlurmError if that cannot be read."""
    file = run_dir / FOLDER / JOBS
    if not file.exists():
        return []
    try:
        return [Submitted(**one) for one in json.loads(file.read_bytes())]
    except (OSError, ValueError, TypeError) as error:
        raise SlurmError(
            f"{file}: cannot be read ({error}); if none of its jobs is in the queue (squeue --me), "
            "delete it"
        ) from None


def _write_jobs(run_dir: Path, jobs: Sequence[Submitted]) -> None:
    value: list[dict[str, Any]] = [asdict(job) for job in jobs]
    _replace(run_dir / FOLDER / JOBS, json.dumps(value, indent=1))


def _replace(file: Path, text: str) -> None:
    temporary = file.with_name(file.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, file)
