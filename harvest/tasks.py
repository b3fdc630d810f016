"""Which share of the corpus this process harvests: told by options, or by a Slurm job array.

Documents are dealt out by a hash of their text, so the number of tasks is part of what a store is.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.errors import ConfigError


@dataclass(frozen=True)
class Task:
    """Number `index` of `of` tasks; each writes the part of its number."""

    index: int = 0
    of: int = 1

    @classmethod
    def read(
        cls, index: int | None, of: int | None, environment: Mapping[str, str] = os.environ
    ) -> Task:
        """From `--task` and `--of`, and for what they leave open from Slurm's job array.

        With `--of` alone the array's index is the task's number: so one that failed can be
        submitted again by itself. Raises ConfigError.
        """
        array = environment.get("SLURM_ARRAY_TASK_ID")
        if index is None and array is not None:
            index = _number("SLURM_ARRAY_TASK_ID", array)
            if of is None:
                index, of = _of_whole_array(index, environment)
        if (index is None) != (of is None):
            raise ConfigError("--task and --of: give both, e.g. --task 0 --of 4")
        task = cls(index or 0, 1 if of is None else of)
        if task.of < 1:
            raise ConfigError(f"--of {task.of}: a store has at least one task")
        if not 0 <= task.index < task.of:
            raise ConfigError(
                f"--task {task.index} --of {task.of}: tasks are numbered from 0 to {task.of - 1}"
            )
        return task

    def share(self, rows: int | None) -> int | None:
        """Of `rows` rows of the whole store those that this task writes."""
        return None if rows is None else rows // self.of + (self.index < rows % self.of)


WHOLE = Task()


def _of_whole_array(index: int, environment: Mapping[str, str]) -> tuple[int, int]:
    """Place of an index in the job array, and the array's size."""
    names = ("SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_MAX", "SLURM_ARRAY_TASK_COUNT")
    values = [_number(name, environment.get(name, "")) for name in names]
    least, most, count = values
    step = environment.get("SLURM_ARRAY_TASK_STEP", "1")
    if least or most - least + 1 != count:
        raise ConfigError(
            f"a job array of {count} tasks from {least} to {most} (step {step}) does not say how "
            "many tasks the store has: add --of N, or submit --array=0-(N-1)"
        )
    return index, count


def _number(name: str, value: str) -> int:
    if not value:
        raise ConfigError(f"{name} is not set, as it is in a job array; give --task and --of")
    if not value.isdecimal():
        raise ConfigError(f"{name}={value!r} is not a number; give --task and --of")
    return int(value)
