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
from store.arrays import GROUPS, PartArray, length_in, missing_ends, part_arrays
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

    state: None if the attributes cannot be trusted; log: what is good of it; readable: whether its
    arrays reach as far as it says, so that their chunks can be looked through.
    """

    folder: Path
    schema: StoreSchema
    state: PartState | None
    log: CommitLog
    faults: tuple[str, ...]
    readable: bool

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
    found = PartMetadata(folder, schema, state, log, (), readable=True)
    view = found.view(None)
    if view is not None:
        missing = list(missing_ends(folder, schema, view.extent))
        found = replace(found, readable=not missing)
        faults += missing
        faults += _array_faults(found, view.extent, tally)
    return replace(found, faults=tuple(faults))


def _array_faults(part: PartMetadata, extent: Extent, tally: Tally) -> Iterator[str]:
    """What is wrong with the arrays' metadata, the chunks of the log, and leftover files."""
    folder, arrays = part.folder, part_arrays(part.schema)
    # In this order, so that a writer that is at work meanwhile is no fault.
    said = [_said_length(folder, array) for array in arrays]
    furthest = extent if part.complete else _extent_now(part, extent)
    for array, length in zip(arrays, said, strict=True):
        wanted = array.length(extent)
        if not part.complete and length <= array.length(furthest):  # it may lag behind, too
            wanted = length
        metadata = array_metadata(array.layout, wanted)
        yield from other_content(folder / array.name / "zarr.json", metadata, tally)
        if array.name == LOG:
            yield from _log_chunks(folder, array, extent, tally)
    if part.complete:
        yield from _leftovers(folder, arrays, extent)


def _extent_now(part: PartMetadata, before: Extent) -> Extent:
    """How far the part reaches by now."""
    try:
        return read_part(part.folder, part.schema).extent
    except StoreError:
        return before


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
    """The damaged chunks of the log, up to the first that is gone."""
    for chunk in range(log.chunks(extent)):
        file = log.file(folder, chunk)
        try:
            check_chunk(file, log.layout)
            tally.bytes_read += file_bytes(file, log.layout)
        except StoreError as error:
            yield reason(error)
            if not os.path.lexists(file):
                return
