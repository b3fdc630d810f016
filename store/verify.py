"""Checks a store: every byte against its checksum, every count and reference against the others.

Cost: one read of the whole store. Promises: a store that passes can be trained on and shown.
Writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import StoreError
from store.check_documents import document_faults
from store.check_metadata import is_begun, read_metadata
from store.check_rows import row_faults
from store.faults import Fault, PartView, Tally, other_content
from store.files import group_metadata
from store.root import read_root, root_metadata
from store.schema import StoreSchema, part_path


@dataclass
class VerifyResult:
    """What was read, whether the harvest came to its end, and every problem, one line each.

    missing: parts that the store should have and that hold nothing yet.
    """

    rows: int = 0
    bytes_read: int = 0
    complete: bool = False
    missing: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def verify(
    path: Path, on_rows: Callable[[int, int], None] = lambda done, total: None
) -> VerifyResult:
    """Reads everything; `on_rows` is told how many rows of how many have been checked."""
    result = VerifyResult()
    tally = Tally()
    try:
        schema = read_root(path)
    except StoreError as error:
        result.problems.append(str(error))
        return result
    result.problems += other_content(path / "zarr.json", root_metadata(schema), tally)
    folders = [part_path(path, number) for number in range(schema.parts)]
    begun = [folder for folder in folders if is_begun(folder, schema)]
    result.missing = [folder.name for folder in folders if folder not in begun]
    result.problems += _parts_folder(path, schema, tally)
    parts = [read_metadata(folder, schema, tally) for folder in begun]
    result.complete = not result.missing and all(part.complete for part in parts)
    first_row: int | None = 0
    total = sum(part.rows or 0 for part in parts)

    def tell(rows: int) -> None:
        result.rows += rows
        on_rows(result.rows, total)

    tally.on_rows = tell
    for part in parts:
        result.problems += part.faults
        view = part.view(first_row)
        if view is None or first_row is None:
            first_row = None
        else:
            first_row += view.extent.rows
        if view is not None and part.readable:
            result.problems += (fault.message for fault in data_faults(view, tally))
    result.bytes_read = tally.bytes_read
    return result


def data_faults(view: PartView, tally: Tally) -> Iterator[Fault]:
    """Every fault of a part's rows, documents and texts."""
    table = yield from document_faults(view, tally)
    yield from row_faults(view, table, tally)


def _parts_folder(path: Path, schema: StoreSchema, tally: Tally) -> Iterator[str]:
    """The group of the parts, and parts that the store should not have."""
    folder = path / "parts"
    try:
        names = sorted(entry.name for entry in folder.iterdir()) if folder.exists() else []
    except OSError as error:
        yield f"{folder}: cannot be listed ({error.strerror})"
        return
    expected = {part_path(path, number).name for number in range(schema.parts)}
    if any(name in expected for name in names):  # a store just begun may not have it yet
        yield from other_content(folder / "zarr.json", group_metadata({}), tally)
    for name in names:
        if name.isdecimal() and name not in expected:
            yield f"{folder / name}: the store was begun for {schema.parts} parts; remove it"
