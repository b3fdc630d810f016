"""Slurm's own commands: submits, and asks what the queue says."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import CrossdiffError

PATIENCE = 60.0


class SlurmError(CrossdiffError):
    """Slurm is not there, or refuses a job."""


@dataclass(frozen=True)
class Queued:
    """A job in the queue; task: its number if it is one of an array."""

    job: int
    task: int | None
    state: str
    reason: str
    node: str


def submit(script: Path, after: Sequence[int] = (), array: str | None = None) -> int:
    """Submits a script to begin when other jobs have ended well; its number. Raises SlurmError.

    array: tasks, in place of all that the script names.
    """
    words = ["sbatch", "--parsable"]
    if after:
        words.append(f"--dependency=afterok:{':'.join(map(str, after))}")
    if array is not None:
        words.append(f"--array={array}")
    try:
        done = subprocess.run(
            [*words, str(script)], capture_output=True, text=True, check=False, timeout=PATIENCE
        )
    except FileNotFoundError:
        raise SlurmError(
            "sbatch: not found; run this where Slurm's commands are, or look at the scripts with "
            "--dry-run"
        ) from None
    except subprocess.TimeoutExpired:
        raise SlurmError(f"sbatch: no answer in {PATIENCE:.0f} s; is slurmctld up?") from None
    if done.returncode:
        said = " ".join(done.stderr.split())
        raise SlurmError(f"{script}: sbatch refuses it ({said}); mend `slurm` in the configuration")
    return int(done.stdout.strip().split(";")[0])


def queue(jobs: Sequence[int]) -> list[Queued] | None:
    """What is queued or runs of some jobs; None where there is no Slurm to ask."""
    if not jobs:
        return []
    words = ["squeue", "--noheader", "--array", "--format", "%F|%K|%T|%r|%N", "--jobs"]
    found = []
    for job in jobs:  # together, one that Slurm has forgotten would hide the others
        try:
            done = subprocess.run(
                [*words, str(job)], capture_output=True, text=True, check=False, timeout=PATIENCE
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        if done.returncode and "Invalid job id" not in done.stderr:
            return None
        found += [_line(line) for line in done.stdout.splitlines() if line.count("|") == 4]
    return found


def _line(line: str) -> Queued:
    job, task, state, reason, node = line.split("|")
    return Queued(int(job), int(task) if task.isdecimal() else None, state, reason, node)


LIVE = ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "REQUEUED", "STOPPED")
"""States of jobs that will do something yet."""


def live(queued: Sequence[Queued]) -> list[Queued]:
    """Those that have not come to their end."""
    return [one for one in queued if one.state in LIVE]
