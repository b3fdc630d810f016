"""The arrays that every part has: their folders, their layouts, and how long each is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pipeline.errors import StoreError
from store.appender import ArrayAppender, array_metadata
from store.commits import LOG, LOG_LAYOUT
from store.difference import first_difference
from store.extent import Extent
from store.files import plain, read_json, write_group
from store.layout import Layout, activation_layout
from store.part import REMEDY, PartState
from store.schema import DOCUMENT_CHUNK, TEXT_CHUNK_BYTES, StoreSchema, chunk_file

GROUPS = ("activations", "rows", "documents")
DOCUMENT_COLUMNS: dict[str, np.dtype[Any]] = {
    "row_end": np.dtype(np.int64),
    "text_end": np.dtype(np.int64),
    "label": np.dtype(np.int32),
    "source": np.dtype(np.int32),
    "hash": np.dtype(np.uint64),
}


@dataclass(frozen=True)
class PartArray:
    """One array of a part; `unit` is what it has one entry for."""

    name: str
    layout: Layout
    unit: Literal["rows", "documents", "text_bytes", "log_bytes"]

    def length(self, extent: Extent) -> int:
        """Entries of the array in a part of this extent."""
        return int(getattr(extent, self.unit))

    def chunks(self, extent: Extent) -> int:
        """Chunk files of the array in a part of this extent."""
        return -(-self.length(extent) // self.layout.rows)

    def file(self, part: Path, chunk: int) -> Path:
        """One of its chunk files."""
        return chunk_file(part / self.name, chunk, 1 + len(self.layout.row_shape))

    def before(self, chunk: int) -> Extent:
        """How far a part reaches that needs no chunk from `chunk` on."""
        return Extent(**{self.unit: chunk * self.layout.rows})


def part_arrays(schema: StoreSchema) -> list[PartArray]:
    """Every array of a part of such a store."""
    rows = schema.chunk_rows
    column = Layout(schema.column_rows, (), np.dtype(np.int32))
    return [
        *(
            PartArray(f"activations/{h.name}", activation_layout(h, rows, schema.codec), "rows")
            for h in schema.hookpoints
        ),
        *(PartArray(f"rows/{name}", column, "rows") for name in schema.row_columns),
        PartArray("documents/text", Layout(TEXT_CHUNK_BYTES, (), np.dtype(np.uint8)), "text_bytes"),
        *(
            PartArray(f"documents/{name}", Layout(DOCUMENT_CHUNK, (), dtype), "documents")
            for name, dtype in DOCUMENT_COLUMNS.items()
        ),
        PartArray(LOG, LOG_LAYOUT, "log_bytes"),
    ]


def open_arrays(folder: Path, schema: StoreSchema, state: PartState) -> dict[str, ArrayAppender]:
    """Opens a part's arrays behind its last commit, by name; what lay behind it is forgotten.

    Their metadata, and that of their groups, are then what they must be.
    """
    for name in GROUPS:
        write_group(folder / name, {})
    arrays = {
        array.name: ArrayAppender(folder / array.name, array.layout, array.length(state.extent))
        for array in part_arrays(schema)
    }
    for appender in arrays.values():
        appender.write_shape()
    return arrays


def missing_ends(folder: Path, schema: StoreSchema, extent: Extent) -> Iterator[str]:
    """A line for each array whose last chunk is not there: it is shorter than the part says.

    One look at each, so that numbers which nothing stands behind cost nothing. Not at the log,
    which readers do without, and which store.commits reads only as far as it is there.
    """
    for array in part_arrays(schema):
        chunks = array.chunks(extent)
        if array.name != LOG and chunks and not (file := array.file(folder, chunks - 1)).is_file():
            said = f"{array.length(extent):,} {array.unit.replace('_', ' ')}"
            yield f"{file}: is missing, but the part is said to have {said}"


def refuse_missing_ends(folder: Path, schema: StoreSchema, extent: Extent) -> None:
    """Raises StoreError, naming the first file, if an array is shorter than the part says."""
    for line in missing_ends(folder, schema, extent):
        raise StoreError(f"{line}; {REMEDY}")


def check_arrays(folder: Path, schema: StoreSchema, state: PartState) -> None:
    """Compares the arrays' metadata with what it must be. Raises StoreError naming the file.

    The length of an unfinished part's arrays may lag behind its last commit, or be ahead of what
    this reader has seen of it.
    """
    refuse_missing_ends(folder, schema, state.extent)
    for array in part_arrays(schema):
        file = folder / array.name / "zarr.json"
        found = read_json(file)
        length = array.length(state.extent)
        if not state.complete:
            length = length_in(found)
        difference = first_difference(found, plain(array_metadata(array.layout, length)))
        if difference:
            raise StoreError(f"{file}: damaged array metadata ({difference}); {REMEDY}")


def length_in(metadata: dict[str, Any]) -> int:
    """Entries that an array's metadata speaks of; 0 if it is damaged."""
    shape = metadata.get("shape")
    length = shape[0] if isinstance(shape, list) and shape else 0
    return length if type(length) is int and length >= 0 else 0
