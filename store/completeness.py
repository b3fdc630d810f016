"""Refuses to work on a store that some of its tasks have not finished."""

from __future__ import annotations

from collections.abc import Sequence

from rich.markup import escape

from pipeline.command import console
from pipeline.errors import StoreError
from store.reader import Store


def require_complete(store: Store, allowed: bool, key: str) -> None:
    """Raises StoreError, naming the tasks that are missing, unless `allowed`: then says so.

    key: of the configuration, that allows it.
    """
    if store.complete:
        return
    missing = unfinished(store)
    parts = store.schema.parts
    of = "task" if len(missing) == 1 else "tasks"
    several = f": {of} {number_ranges(missing)} of {parts} missing" if parts > 1 else ""
    lacks = f"{store.path}: not complete{several}"
    if allowed:
        told = f"[yellow]note:[/] {escape(lacks)}; going on with its {store.rows:,} rows"
        console.print(told, soft_wrap=True)
        return
    which = f" --task {missing[0]} --of {parts}" if parts > 1 else ""
    array = f" (or `sbatch --array={number_ranges(missing)}`)" if parts > 1 else ""
    raise StoreError(
        f"{lacks}; finish it with `harvest run{which}`{array}, or go on with the {store.rows:,} "
        f"rows that it has: --set {key}=true"
    )


def unfinished(store: Store) -> list[int]:
    """Tasks whose parts are not there or not complete."""
    begun = [int(part.folder.name) for part in store.parts if not part.state.complete]
    return sorted([*begun, *store.missing_parts])


def number_ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers as Slurm writes them: 0-3,7."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
