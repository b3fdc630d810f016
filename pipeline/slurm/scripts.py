"""One sbatch script per job, to be read, edited and submitted by hand as well.

A job is told to stop in two ways. Near its time limit the stage stops by itself, with its work
saved (pipeline/time_limit.py), and the script, which Slurm has sent USR1 somewhat earlier, puts the
job back into the queue. Preempted, or requeued by hand, the stage gets SIGTERM as the script does,
which waits for it; then it is Slurm that puts it back. In both cases the same script goes on.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.slurm.config import SIGNAL_EARLY, Resources, SlurmConfig
from pipeline.time_limit import VARIABLE

RENDEZVOUS = """\
# The processes of all nodes find each other at the first one, by a port that follows from the job.
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
head=$(scontrol show node --oneliner "$head" | grep -o 'NodeAddr=[^ ]*' | cut -d = -f 2)
port=$((20000 + SLURM_JOB_ID % 20000))
"""
RUN = """\
near_limit=
trap 'near_limit=1' USR1   # from Slurm, {signal} to {early} s before the time limit
trap : TERM                # preempted or requeued: the stage was told as well, wait for it
{command} &
stage=$!
while kill -0 $stage 2>/dev/null; do wait $stage; done
wait $stage
code=$?
if [ $code -ne 0 ] && [ -n "$near_limit" ]; then
    echo "$(date '+%F %T') the time limit is near: back into the queue"
    scontrol requeue "{job}"
    sleep 600   # until Slurm ends this run of the job
fi
exit $code
"""


@dataclass(frozen=True)
class Job:
    """A script; array: how many tasks it has, None for a job of its own."""

    name: str
    stage: str
    text: str
    array: int | None = None


@dataclass(frozen=True)
class Setting:
    """Where jobs run and what they read: all absolute paths."""

    work_dir: Path
    config: Path
    logs: Path
    python: str
    title: str


def jobs_of(section: SlurmConfig, setting: Setting, stages: Sequence[str]) -> list[Job]:
    """The jobs of some stages, each to begin when the ones before it have ended well."""
    found = []
    if "harvest" in stages:
        found.append(_harvest(section, setting))
    if "train" in stages:
        found.append(_train(section, setting))
    if "analyze" in stages:
        found += _analyze(section, setting)
    return found


def _harvest(section: SlurmConfig, setting: Setting) -> Job:
    own = section.harvest
    at_once = "" if own.at_once is None else f"%{own.at_once}"
    head = _head(section, "harvest", "harvest", setting, f"0-{own.tasks - 1}{at_once}")
    words = _stage(setting, "harvest", "run", "--of", str(own.tasks))
    text = head + _run(section, words, array=True)
    return Job("harvest", "harvest", text, own.tasks)


def _train(section: SlurmConfig, setting: Setting) -> Job:
    own = section.train
    nodes = ["--nodes", str(own.nodes), "--ntasks-per-node", "1"]
    head = _head(section, "train", "train", setting, nodes=nodes)
    run = ["-m", "train", "run", "--config", shlex.quote(str(setting.config))]
    python = '"$PYTHON"'
    torchrun = [python, "-m", "torch.distributed.run"]
    each = [f"--nproc-per-node={own.processes}"]
    if own.nodes > 1:
        meet = ["--rdzv-backend=c10d", '--rdzv-endpoint="$head:$port"']
        meet.append('--rdzv-id="$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}"')
        nodes_ = [f"--nnodes={own.nodes}"]
        words = ["srun", "--kill-on-bad-exit=1", *torchrun, *nodes_, *each, *meet, *run]
        return Job("train", "train", head + RENDEZVOUS + _run(section, words))
    words = [*torchrun, "--standalone", *each, *run] if own.processes > 1 else [python, *run]
    return Job("train", "train", head + _run(section, words))


def _analyze(section: SlurmConfig, setting: Setting) -> list[Job]:
    own, found = section.analyze, []
    if own.tasks > 1:
        head = _head(section, "analyze", "sweep", setting, f"0-{own.tasks - 1}")
        words = _stage(setting, "analyze", "sweep", "--of", str(own.tasks))
        found.append(Job("sweep", "analyze", head + _run(section, words, array=True), own.tasks))
    head = _head(section, "analyze", "analyze", setting)
    words = _stage(setting, "analyze", "report")
    return [*found, Job("analyze", "analyze", head + _run(section, words))]


def _stage(setting: Setting, *words: str) -> list[str]:
    program, command, *options = words
    config = ["--config", shlex.quote(str(setting.config))]
    return ['"$PYTHON"', "-m", program, command, *config, *options]


def _head(
    section: SlurmConfig,
    stage: str,
    name: str,
    setting: Setting,
    array: str | None = None,
    nodes: Sequence[str] = (),
) -> str:
    """Directives, environment, prologue."""
    folder = str(setting.logs).replace("%", "%%")
    log = f"{folder}/{name}-{'%A_%a' if array else '%j'}.log"
    asked: Resources = section.of(stage)
    options = [
        ("--job-name", f"{setting.title}-{name}"),
        ("--chdir", str(setting.work_dir)),
        ("--output", log),
        ("--open-mode", "append"),
        ("--array", array),
        *zip(nodes[::2], nodes[1::2], strict=True),
        ("--partition", asked.partition),
        ("--account", asked.account),
        ("--gres", asked.gres),
        ("--cpus-per-task", asked.cpus),
        ("--mem", asked.mem),
        ("--time", asked.time),
        ("--signal", f"B:USR1@{section.stop_seconds + SIGNAL_EARLY}"),
        ("--kill-on-invalid-dep", "yes"),
    ]
    lines = [f"#SBATCH {key}={_quoted(str(value))}" for key, value in options if value is not None]
    lines += ["#SBATCH --requeue", *(f"#SBATCH {option}" for option in asked.extra)]
    exports = [
        f"export PYTHON={shlex.quote(setting.python)}",
        "export PYTHONSAFEPATH=1   # a folder that is called like a stage must not shadow it",
        f"export {VARIABLE}={section.stop_seconds}",
        '[ -z "$SLURM_CPUS_PER_TASK" ] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK',
    ]
    told = f"echo \"$(date '+%F %T') {name} on $(hostname), start ${{SLURM_RESTART_COUNT:-0}}\""
    parts = ["#!/bin/bash", *lines, "", *exports]
    if section.prologue.strip():
        parts += ["", "# prologue of the configuration", section.prologue.rstrip()]
    return "\n".join([*parts, "", told, ""])


def _run(section: SlurmConfig, words: Sequence[str], array: bool = False) -> str:
    signal = section.stop_seconds + SIGNAL_EARLY
    job = "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}" if array else "$SLURM_JOB_ID"
    return RUN.format(command=" ".join(words), job=job, signal=signal, early=signal + SIGNAL_EARLY)


def _quoted(value: str) -> str:
    """As sbatch reads a value of a directive. Raises ConfigError for what would end its line."""
    if not value.isprintable() or "\\" in value:
        raise ConfigError(
            f"{value!r}: cannot stand in a job's script; use a folder without line breaks and "
            "backslashes in its name"
        )
    plain = all(character.isalnum() or character in "-_./:%@,+=" for character in value)
    return value if plain else '"' + value.replace('"', '\\"') + '"'
