"""How far each task of a harvest is: a small file per task beside the store, for people and resume.

The store itself holds nothing that depends on time or on interruptions. What is here is a shortcut
and may be lost: without it a harvest that goes on reads the corpus up to where it was once more.
"""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from harvest.tasks import Task
from store.files import write_json

SECONDS_BETWEEN = 5.0


class TaskProgress(BaseModel):
    """What a task last said of itself. `rows` count uncommitted ones too; times are Unix times.

    schema_digest: of the store it speaks of; cursor, state: documents of the corpus done with as of
    a commit, and where its reader was then.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: int
    of: int
    host: str
    process: int
    rows: int
    rows_expected: int | None
    rows_per_second: float | None
    documents: int
    updated: float
    stopped: bool = False
    schema_digest: str = ""
    cursor: int = 0
    state: dict[str, Any] | None = None

    @property
    def seconds_left(self) -> float | None:
        """Expected time to the task's end, if it goes on as it did."""
        if self.rows_expected is None or not self.rows_per_second:
            return None
        return max(0, self.rows_expected - self.rows) / self.rows_per_second


class ProgressFile:
    """Writes a task's progress: at every commit, and every few seconds in between."""

    def __init__(
        self,
        store: Path,
        task: Task,
        rows: int,
        schema_digest: str = "",
        cursor: int = 0,
        state: dict[str, Any] | None = None,
    ) -> None:
        self._path = progress_path(store, task.index)
        self._schema_digest = schema_digest
        self._task = task
        self._rows_before = rows
        self._begun = time.monotonic()
        self._written = 0.0
        self._stopped = False
        self._cursor, self._state = cursor, state
        self._said: tuple[int, int | None, int] = (rows, None, 0)
        self.rows_per_second: float | None = None

    def update(self, rows: int, expected: int | None, documents: int) -> None:
        """Tells of rows and documents done; writes only if it has not for a while."""
        seconds = max(1e-9, time.monotonic() - self._begun)
        self.rows_per_second = (rows - self._rows_before) / seconds or None
        self._said = (rows, expected, documents)
        if time.monotonic() - self._written > SECONDS_BETWEEN:
            self._write()

    def committed(self, cursor: int, state: dict[str, Any] | None) -> None:
        """Tells where the corpus' reader was at the last commit."""
        self._cursor, self._state = cursor, state
        self._write()

    def stopped(self, cursor: int, state: dict[str, Any] | None) -> None:
        """Tells that the task has stopped before its end, with everything done committed."""
        self._stopped = True
        self.committed(cursor, state)

    def finished(self, rows: int) -> None:
        """Tells that the task has all its rows."""
        self._said = (rows, rows, self._said[2])
        self._state = None
        self._stopped = True
        self._write()

    def _write(self) -> None:
        rows, expected, documents = self._said
        said = TaskProgress(
            task=self._task.index,
            of=self._task.of,
            host=socket.gethostname(),
            process=os.getpid(),
            rows=rows,
            rows_expected=expected,
            rows_per_second=self.rows_per_second,
            documents=documents,
            updated=time.time(),
            stopped=self._stopped,
            schema_digest=self._schema_digest,
            cursor=self._cursor,
            state=self._state,
        )
        write_json(self._path, said.model_dump())
        self._written = time.monotonic()


def progress_path(store: Path, task: int) -> Path:
    """Where a task's progress lies."""
    return store.parent / "harvest" / f"{store.name}-{task:05d}.json"


def read_progress(store: Path, task: int) -> TaskProgress | None:
    """What a task last said; None if it said nothing that can be read."""
    try:
        return TaskProgress.model_validate_json(progress_path(store, task).read_bytes())
    except (OSError, ValidationError):
        return None
