"""SIGTERM comes ahead of a job's time limit, however that is told, and never outside of Slurm."""

import os
import signal
import subprocess
import sys
import time

import pytest

from pipeline.time_limit import seconds_left, stops_in_time


@pytest.fixture
def squeue(tmp_path, monkeypatch):
    def says(text):
        (tmp_path / "squeue").write_text(f"#!/bin/sh\necho '{text}'\n")
        (tmp_path / "squeue").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    return says


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1-02:03:04", 93784),
        ("2:03:04", 7384),
        ("3:04", 184),
        ("0:00", 0),
        ("UNLIMITED", None),
        ("INVALID", None),
        ("", None),
    ],
)
def test_the_time_left_is_read_from_squeue(squeue, text, seconds):
    squeue(text)
    assert seconds_left("1") == seconds


def test_else_from_the_end_that_the_job_was_told(squeue):
    squeue("slurm_load_jobs error")
    assert seconds_left("1", time.time() + 50) == pytest.approx(50, abs=2)
    assert seconds_left("1", time.time() - 50) == 0


PROGRAM = """
import os, sys, time
from pipeline.time_limit import stops_in_time
with stops_in_time():
    open({ready!r}, "w")
    time.sleep(20)
"""


def run(tmp_path, squeue, text, **environment):
    squeue(text)
    program = PROGRAM.format(ready=str(tmp_path / "ready"))
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return done, time.monotonic() - begin


def test_a_task_of_an_array_asks_for_itself_alone(tmp_path, squeue):
    """The one that has the number of the array would else be told of all of them."""
    squeue('\' ; case "$*" in *"--jobs 7_2"*) echo 0:02;; *) echo 1:00; echo 2:00;; esac; : \'')
    done, _ = run(
        tmp_path,
        squeue_as_it_is,
        "",
        SLURM_JOB_ID="7",
        SLURM_ARRAY_JOB_ID="7",
        SLURM_ARRAY_TASK_ID="2",
    )
    assert done.returncode == -signal.SIGTERM
    assert "job 7_2 is near" in done.stderr


def squeue_as_it_is(text):
    """Leaves the script that the test has written."""


def test_near_the_end_the_process_is_told_to_stop(tmp_path, squeue):
    done, seconds = run(tmp_path, squeue, "0:02", SLURM_JOB_ID="12", CROSSDIFF_STOP_SECONDS="1000")
    assert done.returncode == -signal.SIGTERM
    assert "the time limit of job 12 is near; stopping" in done.stderr
    assert seconds < 15


def test_outside_of_slurm_and_without_a_limit_nothing_happens(squeue, monkeypatch):
    squeue("UNLIMITED")

    def refuse(*_):
        raise AssertionError("a signal was sent")

    monkeypatch.setattr(os, "kill", refuse)
    with stops_in_time({}):
        pass
    with stops_in_time({"SLURM_JOB_ID": "3", "CROSSDIFF_STOP_SECONDS": "0.1"}):
        time.sleep(0.5)
    squeue("0:01")
    with stops_in_time({"SLURM_JOB_ID": "3"}):  # what ends before is not told
        pass
    time.sleep(1)
