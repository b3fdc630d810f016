"""Refuses to work on a store that some of its tasks have not finished."""

from __future__ import annotations

from pipeline.command import note
from pipeline.errors import StoreError
from pipeline.wording import number_ranges
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
        note(f"{lacks}; going on with its {store.rows:,} rows")
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
