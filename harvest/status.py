"""How far a harvest is, task by task: what the store holds, and what the tasks last said."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harvest.progress import TaskProgress, read_progress
from store.part import PartState
from store.reader import Store

State = Literal["complete", "running", "stopped", "not begun"]
SILENT_SECONDS = 120.0


@dataclass(frozen=True)
class TaskStatus:
    """One task: rows committed; the other figures as the task last said them, None if it did not.

    silent_seconds: time since it last said anything; one silent for two minutes counts as stopped.
    """

    task: int
    state: State
    rows: int
    documents: int
    rows_expected: int | None
    rows_per_second: float | None
    seconds_left: float | None
    silent_seconds: float | None
    host: str | None


@dataclass(frozen=True)
class HarvestStatus:
    """All tasks of a store, and their sums; None where a task has not said enough.

    reason: in what the store differs from what the configuration asks for, if that is known.
    """

    store: str
    complete: bool
    rows: int
    rows_expected: int | None
    rows_per_second: float | None
    seconds_left: float | None
    tasks: list[TaskStatus]
    reason: str | None = None


def status(path: Path) -> HarvestStatus:
    """Reads the store and the files beside it. Raises StoreError if there is no store."""
    store = Store(path)
    states = {int(part.folder.name): part.state for part in store.parts}
    tasks = [
        _task(number, states.get(number), read_progress(path, number))
        for number in range(store.schema.parts)
    ]
    expected = [task.rows if task.state == "complete" else task.rows_expected for task in tasks]
    running = [task for task in tasks if task.state == "running"]
    left = [task.seconds_left for task in tasks if task.state != "complete"]
    known = [seconds for seconds in left if seconds is not None]
    return HarvestStatus(
        store=str(path),
        complete=store.complete,
        rows=store.rows,
        rows_expected=None if None in expected else sum(rows or 0 for rows in expected),
        rows_per_second=sum(task.rows_per_second or 0 for task in running) if running else None,
        seconds_left=max(known, default=0.0) if len(known) == len(left) else None,
        tasks=tasks,
    )


def _task(number: int, state: PartState | None, said: TaskProgress | None) -> TaskStatus:
    silent = None if said is None else max(0.0, time.time() - said.updated)
    stands = _state(state, silent, said is not None and said.stopped)
    running = said if stands == "running" else None
    return TaskStatus(
        task=number,
        state=stands,
        rows=0 if state is None else state.rows,
        documents=0 if state is None else state.documents,
        rows_expected=None if said is None else said.rows_expected,
        rows_per_second=None if said is None else said.rows_per_second,
        seconds_left=None if running is None else running.seconds_left,
        silent_seconds=silent,
        host=None if said is None else said.host,
    )


def _state(state: PartState | None, silent: float | None, stopped: bool) -> State:
    if state is None:
        return "not begun"
    if state.complete:
        return "complete"
    if stopped or silent is None or silent > SILENT_SECONDS:
        return "stopped"
    return "running"
