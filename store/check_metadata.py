"""Checks what a part says of itself: attributes, commit log, groups, arrays, leftover files.

Costs a few small files per part and one listing per array, whatever the number of its rows.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.errors import StoreError
from store.appender import array_metadata
from store.arrays import GROUPS, PartArray, length_in, part_arrays
from store.chunks import check_chunk, file_bytes
from store.commits import LOG, CommitLog, read_log
from store.extent import Extent
from store.faults import PartView, Tally, other_content, reason
from store.files import TEMPORARY, group_metadata, read_json
from store.part import PartState, part_metadata, read_part
from store.schema import StoreSchema


@dataclass(frozen=True)
class PartMetadata:
    """A part as its attributes and its log describe it, and what is wrong with them.

    state: None if the attributes cannot be trusted; log: what is good of it.
    """

    folder: Path
    schema: StoreSchema
    state: PartState | None
    log: CommitLog
    faults: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether the part has been harvested to its end."""
        return self.state is not None and self.state.complete

    @property
    def rows(self) -> int | None:
        """Rows of the part; None if nothing can be trusted to say how many."""
        view = self.view(None)
        return None if view is None else view.extent.rows

    def view(self, first_row: int | None) -> PartView | None:
        """The part up to its last commit; None if nothing can be trusted to say how far it goes."""
        if self.state is not None:
            extent, labels = self.state.extent, self.state.labels
        elif self.log.commits:
            extent = replace(self.log.last.extent, log_bytes=len(self.log.content))
            labels = self.log.labels
        else:
            return None
        return PartView(self.folder, self.schema, extent, len(labels), first_row)


def is_begun(folder: Path, schema: StoreSchema) -> bool:
    """Whether a writer has ever opened the part to the end, be it damaged since."""
    arrays = (folder / array.name / "c" for array in part_arrays(schema))
    return any(os.path.lexists(path) for path in (folder / "zarr.json", *arrays))


def read_metadata(folder: Path, schema: StoreSchema, tally: Tally) -> PartMetadata:
    """Looks through all that is not rows, documents or text. Raises nothing."""
    faults: list[str] = []
    state = None
    try:
        state = read_part(folder, schema)
        faults += other_content(folder / "zarr.json", part_metadata(schema, state), tally)
    except StoreError as error:
        faults.append(str(error))
    log = read_log(folder, None if state is None else state.log_bytes)
    if state is not None and not (log.damage or log.leads_to(state)):
        log = replace(log, damage="does not lead to what the part's attributes say")
    if log.damage:
        faults.append(f"{folder / LOG}: commit log {log.damage}")
    for name in GROUPS:
        faults += other_content(folder / name / "zarr.json", group_metadata({}), tally)
    found = PartMetadata(folder, schema, state, log, ())
    view = found.view(None)
    if view is not None:
        # In this order, so that a writer that is at work meanwhile is no fault.
        shapes = [(array, _said_length(folder, array)) for array in part_arrays(schema)]
        extents = [view.extent, *(() if found.complete else read_log(folder).extents())]
        for array, length in shapes:
            lengths = [array.length(extent) for extent in extents]
            wanted = array_metadata(array.layout, length if length in lengths else lengths[0])
            faults += other_content(folder / array.name / "zarr.json", wanted, tally)
            if array.name == LOG:
                faults += _log_chunks(folder, array, view.extent, tally)
        if found.complete:
            faults += _leftovers(folder, part_arrays(schema), view.extent)
    return replace(found, faults=tuple(faults))


def _said_length(folder: Path, array: PartArray) -> int:
    try:
        return length_in(read_json(folder / array.name / "zarr.json"))
    except StoreError:
        return 0


def _leftovers(folder: Path, arrays: list[PartArray], extent: Extent) -> Iterator[str]:
    """Files in a complete part that no writer leaves in one."""
    strays = [
        file
        for group in (folder, *(folder / name for name in GROUPS))
        for file in group.glob(f"*{TEMPORARY}")
    ]
    for array in arrays:
        chunks = array.chunks(extent)
        for place, _, names in os.walk(folder / array.name):
            files = (Path(place, name) for name in names)
            strays += (file for file in files if not _belongs(file, folder, array, chunks))
    for file in sorted(strays):
        yield f"{file}: is left over, no commit has it"


def _belongs(file: Path, folder: Path, array: PartArray, chunks: int) -> bool:
    place = file.relative_to(folder / array.name).parts
    if len(place) == 1:
        return place[0] == "zarr.json"
    number = place[1]
    return number.isdecimal() and int(number) < chunks and file == array.file(folder, int(number))


def _log_chunks(folder: Path, log: PartArray, extent: Extent, tally: Tally) -> Iterator[str]:
    for chunk in range(log.chunks(extent)):
        file = log.file(folder, chunk)
        try:
            check_chunk(file, log.layout)
            tally.bytes_read += file_bytes(file, log.layout)
        except StoreError as error:
            yield reason(error)
