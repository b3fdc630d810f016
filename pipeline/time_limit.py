"""Ends a stage in good time before the time limit of the Slurm job that it runs in.

It sends itself the signal that a batch system would send, on which stages save their work and end
with code 143. So it holds in any script, for any number of processes and nodes, and however the
job was submitted; that the job is put into the queue again is the script's part.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from pipeline.command import note

STOP_SECONDS = 120.0
ASK_AGAIN = 600.0  # seconds
VARIABLE = "CROSSDIFF_STOP_SECONDS"  # so many seconds before the limit
LEFT = re.compile(r"^(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)$")


@contextmanager
def stops_in_time(environment: Mapping[str, str] = os.environ) -> Iterator[None]:
    """While the context lasts, SIGTERM comes some time before the job's end; at half of it at most.

    Outside of Slurm, or where the job has no limit, nothing happens.
    """
    job = environment.get("SLURM_JOB_ID")
    if job is None:
        yield
        return
    if "SLURM_ARRAY_TASK_ID" in environment:  # one of them has the number of the whole array
        job = f"{environment.get('SLURM_ARRAY_JOB_ID')}_{environment['SLURM_ARRAY_TASK_ID']}"
    done = threading.Event()
    ahead = _number(environment.get(VARIABLE)) or STOP_SECONDS
    end = _number(environment.get("SLURM_JOB_END_TIME"))
    threading.Thread(target=_watch, args=(job, end, ahead, done), daemon=True).start()
    try:
        yield
    finally:
        done.set()


def _watch(job: str, end: float | None, ahead: float, done: threading.Event) -> None:
    left = seconds_left(job, end)
    while left is None:  # a busy controller, or no limit
        if done.wait(ASK_AGAIN):
            return
        left = seconds_left(job, end)
    ahead = min(ahead, left / 2)
    while not done.wait(max(0.0, left - ahead)):
        left = seconds_left(job, end)  # it may have been given more time meanwhile
        if left is None or left <= ahead + 1:  # not known: the limit is near by what it was
            note(f"the time limit of job {job} is near; stopping")
            os.kill(os.getpid(), signal.SIGTERM)
            return


def seconds_left(job: str, end: float | None = None) -> float | None:
    """Until a job's time limit, as squeue says; else until `end`, a Unix time; None: unlimited."""
    words = ["squeue", "--noheader", "--jobs", job, "--format", "%L"]
    try:
        found = subprocess.run(words, capture_output=True, text=True, timeout=60).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        found = ""
    if found == "UNLIMITED":
        return None
    match = LEFT.match(found)
    if match:
        days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
        return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
    return None if end is None else max(0.0, end - time.time())


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
