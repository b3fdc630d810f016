"""Runs the stages in order, each as its own process: they meet only on disk.

Every stage checks its section before the first one starts; one that is complete and was made from
this configuration and what is there now is skipped; every other continues where an earlier run of
it was stopped. So running the pipeline again after a crash is always right.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Collection, Sequence
from pathlib import Path

from pipeline.command import console
from pipeline.config import Config
from pipeline.stages import Stage, StageFailed, command, stage_states

INTERRUPTED = 130


def check_all(stages: Sequence[Stage], file: Path, overrides: Sequence[str]) -> None:
    """Lets every stage validate its configuration. Raises StageFailed."""
    for stage in stages:
        _run(stage, file, overrides, ["--check"])


def run_all(
    settings: Config,
    stages: Sequence[Stage],
    file: Path,
    overrides: Sequence[str],
    force: Collection[str] = (),
) -> dict[str, float]:
    """Runs the stages in order; returns seconds per stage that was run. Raises StageFailed.

    force: stages that are done anew, what they have made is removed first.
    """
    seconds: dict[str, float] = {}
    for number, stage in enumerate(stages, start=1):
        console.print(f"[bold]{number}/{len(stages)} {stage.name}[/]")
        fresh = stage.name in force
        runs = [["--fresh"]] if fresh else _runs(settings, stage, file, overrides)
        if not runs:
            console.print(f"{stage.name}: complete (again: --force {stage.name})")
            continue
        begin = time.monotonic()
        for flags in runs:
            _run(stage, file, overrides, flags)
        seconds[stage.name] = time.monotonic() - begin
    return seconds


def _runs(settings: Config, stage: Stage, file: Path, overrides: Sequence[str]) -> list[list[str]]:
    """Options of the runs that a stage still needs: one for each task of a harvest in several.

    A harvest in one part finds out by itself, for it compares the models' and corpus' files too.
    """
    state = stage_states(settings, [stage], file, overrides)[stage.name]
    if stage.name != "harvest":
        return [] if state.state == "complete" else [[]]
    of = len(state.units)
    if of < 2:
        return [[]]
    missing = [unit.number for unit in state.units if unit.state != "complete"]
    numbers = missing or ([0] if state.state != "complete" else [])
    return [["--task", str(number), "--of", str(of)] for number in numbers]


def _run(stage: Stage, file: Path, overrides: Sequence[str], flags: Sequence[str]) -> None:
    code = _wait(subprocess.Popen([*command(stage.words, file, overrides), *flags]))
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
