"""The stages, the programs that they are, and what their files say of how far they are.

A stage is asked by its own `status` command, as a process: nothing of a stage is imported here.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pipeline.config import Config
from pipeline.errors import ConfigError, CrossdiffError

StageName = Literal["harvest", "train", "analyze"]
State = Literal["complete", "running", "stopped", "not begun", "outdated"]


@dataclass(frozen=True)
class Stage:
    """A stage and the words that its program is started with."""

    name: StageName
    words: tuple[str, ...]


STAGES = (
    Stage("harvest", ("harvest", "run")),
    Stage("train", ("train", "run")),
    Stage("analyze", ("analyze", "report")),
)


@dataclass(frozen=True)
class Unit:
    """A task of a harvest, a dictionary, or the report; what is None is not known.

    number: of the task in its job array; done, of: rows or steps, as `unit` says.
    """

    name: str
    state: State
    number: int = 0
    done: int | None = None
    of: int | None = None
    unit: str = ""
    rate: float | None = None
    seconds_left: float | None = None
    silent_seconds: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class StageState:
    """How far a stage is; state: complete if all of its units are."""

    name: StageName
    state: State
    units: list[Unit] = field(default_factory=list)
    reason: str | None = None


class StageFailed(CrossdiffError):
    """A stage ended with an error, which it has already explained."""


def chosen_stages(names: Sequence[str] = (), start: str | None = None) -> tuple[Stage, ...]:
    """Stages by name, or those from one on, in their order. Raises ConfigError."""
    known = [stage.name for stage in STAGES]
    for name in [*names, *([start] if start else [])]:
        if name not in known:
            raise ConfigError(f"{name}: no such stage; one of {', '.join(known)}")
    first = known.index(start) if start else 0  # type: ignore[arg-type]
    return tuple(stage for stage in STAGES[first:] if not names or stage.name in names)


def command(words: Sequence[str], file: Path, overrides: Sequence[str]) -> list[str]:
    """The command line of a stage's program."""
    settings = [word for text in overrides for word in ("--set", text)]
    # -P: a folder of the current directory that is called like a stage must not shadow it.
    return [sys.executable, "-P", "-m", *words, "--config", str(file), *settings]


def stage_states(
    settings: Config, stages: Sequence[Stage], file: Path, overrides: Sequence[str]
) -> dict[str, StageState]:
    """What the files say of some stages, which are asked at the same time."""
    asked = {
        stage.name: subprocess.Popen(
            [*command((stage.name, "status"), file, overrides), "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for stage in stages
        if _begun(settings, stage.name)
    }
    found: dict[str, StageState] = {}
    for stage in stages:
        if stage.name not in asked:
            found[stage.name] = StageState(stage.name, "not begun")
            continue
        process = asked[stage.name]
        out, err = process.communicate()
        found[stage.name] = _read(stage.name, out, err)
    return found


def _begun(settings: Config, name: str) -> bool:
    """Whether there is something that a stage could tell of."""
    if name == "harvest":
        return (settings.store_path / "zarr.json").exists()
    if name == "train":
        return True
    return (settings.dictionary_path / "config.json").exists()


def _read(name: StageName, out: str, err: str) -> StageState:
    try:
        found = json.loads(out)
    except ValueError:
        lines = err.strip().splitlines()
        reason = lines[-1].removeprefix("error: ") if lines else "its status cannot be read"
        return StageState(name, "stopped", reason=reason)
    return {"harvest": _harvest, "train": _train, "analyze": _analyze}[name](found)


def _harvest(found: dict[str, Any]) -> StageState:
    units = [
        Unit(
            name=f"task {task['task']} of {len(found['tasks'])}",
            state=task["state"],
            number=task["task"],
            done=task["rows"],
            of=task["rows"] if task["state"] == "complete" else task["rows_expected"],
            unit="rows",
            rate=task["rows_per_second"] if task["state"] == "running" else None,
            seconds_left=task["seconds_left"],
            silent_seconds=task["silent_seconds"],
        )
        for task in found["tasks"]
    ]
    return _stage("harvest", units, found["complete"], found["reason"])


def _train(found: dict[str, Any]) -> StageState:
    units = [
        Unit(
            name=one["name"],
            state=one["state"],
            done=one["step"],
            of=one["steps"],
            unit="steps",
            rate=one["rows_per_second"] if one["state"] == "running" else None,
            seconds_left=one["seconds_left"],
            silent_seconds=one["silent_seconds"],
            reason=one["reason"],
        )
        for one in found["dictionaries"]
    ]
    reasons = [unit.reason for unit in units if unit.reason]
    return _stage("train", units, found["complete"], reasons[0] if reasons else None)


def _analyze(found: dict[str, Any]) -> StageState:
    tables = len(found["tables"])
    unit = Unit("report", found["state"], done=tables, unit="tables", reason=found["reason"])
    return _stage("analyze", [unit], found["state"] == "complete", found["reason"])


def _stage(name: StageName, units: list[Unit], complete: bool, reason: str | None) -> StageState:
    states = {unit.state for unit in units}
    order: tuple[State, ...] = ("running", "outdated", "stopped", "not begun")
    state: State = next((one for one in order if one in states), "stopped")
    if complete:
        state = "outdated" if reason else "complete"
    elif state == "not begun" and "complete" in states:
        state = "stopped"
    return StageState(name, state, units, reason)
