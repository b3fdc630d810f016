"""Runs the stages in order, each as its own process: they meet only on disk.

Every stage checks its section before the first one starts, and every stage continues where an
earlier run of it was stopped, so running the pipeline again after a crash is always right.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.command import console
from pipeline.errors import CrossdiffError


@dataclass(frozen=True)
class Stage:
    """A stage and the words that its program is started with."""

    name: str
    words: tuple[str, ...]


STAGES = (
    Stage("harvest", ("harvest", "run")),
    Stage("train", ("train", "run")),
    Stage("analyze", ("analyze", "report")),
)


INTERRUPTED = 130


class StageFailed(CrossdiffError):
    """A stage ended with an error, which it has already explained."""


def check_all(stages: Sequence[Stage], file: Path, overrides: Sequence[str]) -> None:
    """Lets every stage validate its configuration. Raises StageFailed."""
    for stage in stages:
        _run(stage, file, overrides, ["--check"])


def run_all(stages: Sequence[Stage], file: Path, overrides: Sequence[str]) -> dict[str, float]:
    """Runs the stages in order; returns seconds per stage. Raises StageFailed."""
    seconds = {}
    for number, stage in enumerate(stages, start=1):
        console.print(f"[bold]{number}/{len(stages)} {stage.name}[/]")
        begin = time.monotonic()
        _run(stage, file, overrides, [])
        seconds[stage.name] = time.monotonic() - begin
    return seconds


def _run(stage: Stage, file: Path, overrides: Sequence[str], flags: Sequence[str]) -> None:
    settings = [word for text in overrides for word in ("--set", text)]
    # -P: a folder of the current directory that is called like a stage must not shadow it.
    command = [sys.executable, "-P", "-m", *stage.words, "--config", str(file), *settings, *flags]
    code = _wait(subprocess.Popen(command))
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    if code:
        raise StageFailed(
            f"stage {stage.name} ended with code {code}; mend what it says above and run the "
            "same command again: finished work is kept"
        )


def _wait(process: subprocess.Popen[bytes]) -> int:
    """Exit code of a stage. Ctrl-C reaches the stage too, which gets the time to save its work."""
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue
