"""Checks a part's rows: every byte against its checksum, every value against its document.

Cost: one read of the part; vectorised over the rows of a chunk.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping

import numpy as np

from pipeline.errors import StoreError
from store.arrays import PartArray, part_arrays
from store.check_documents import DocumentTable
from store.chunks import check_chunk, file_bytes
from store.extent import Extent
from store.faults import Fault, PartView, Tally, reason

LARGEST_ID = 2**31 - 1


def row_faults(view: PartView, table: DocumentTable, tally: Tally) -> Iterator[Fault]:
    """Every fault of activations and row columns; `table` says what is known of the documents."""
    arrays = [array for array in part_arrays(view.schema) if array.unit == "rows"]
    yield from _column_faults(view, [a for a in arrays if not a.layout.row_shape], table, tally)
    activations = [array for array in arrays if array.layout.row_shape]
    for chunk, first, stop in _chunks(view, view.schema.chunk_rows):
        for array in activations:
            yield from _chunk(view, array, chunk, view.rows(first, stop), tally)
        tally.on_rows(stop - first)


def _column_faults(
    view: PartView, arrays: list[PartArray], table: DocumentTable, tally: Tally
) -> Iterator[Fault]:
    for chunk, first, stop in _chunks(view, view.schema.column_rows):
        columns: dict[str, np.ndarray] = {}
        for array in arrays:
            values = yield from _chunk(view, array, chunk, view.rows(first, stop), tally)
            if values is not None:
                name = array.name.removeprefix("rows/")
                columns[name] = values[: stop - first].astype(np.int64)
        for name, wrong, what in _wrong_values(view, columns, first, table):
            if wrong.any():
                bad = first + np.flatnonzero(wrong)
                file = next(a for a in arrays if a.name == f"rows/{name}").file(view.folder, chunk)
                where = view.rows(int(bad[0]), int(bad[-1]) + 1)
                yield Fault(f"{file}: {what} ({where})", Extent(rows=int(bad[0])))


def _chunks(view: PartView, rows: int) -> Iterator[tuple[int, int, int]]:
    """Number, first row and end of every chunk of so many rows."""
    for chunk, first in enumerate(range(0, view.extent.rows, rows)):
        yield chunk, first, min(first + rows, view.extent.rows)


def _chunk(
    view: PartView, array: PartArray, chunk: int, where: str, tally: Tally
) -> Generator[Fault, None, np.ndarray | None]:
    """The stored rows of a chunk; None if it is damaged."""
    file = array.file(view.folder, chunk)
    try:
        values = check_chunk(file, array.layout)
        tally.bytes_read += file_bytes(file, array.layout)
    except StoreError as error:
        yield Fault(f"{reason(error)} ({where})", array.before(chunk))
        return None
    return values


def _wrong_values(
    view: PartView, columns: Mapping[str, np.ndarray], first: int, table: DocumentTable
) -> Iterator[tuple[str, np.ndarray, str]]:
    """Column, which of the chunk's rows are wrong, and how; damaged columns are left out."""
    documents, starts, ends = (columns.get(name) for name in ("document", "char_start", "char_end"))
    if documents is not None:
        there = (documents >= 0) & (documents < view.extent.documents)
        yield "document", ~there, "a row refers to a document not there"
        yield "document", np.diff(documents, prepend=documents[:1]) < 0, "documents out of order"
        if table.row_end is not None:
            rows = np.arange(first, first + len(documents))
            belongs = np.searchsorted(table.row_end, rows, side="right")
            yield "document", there & (belongs != documents), "row_end gives the row to another"
    if starts is not None:
        yield "char_start", starts < 0, "a row's characters begin before its text"
    if starts is not None and ends is not None:
        yield "char_end", starts > ends, "a row's characters run backwards"
    if ends is not None and documents is not None:
        last = np.zeros(len(ends), np.int64)
        last[there] = table.characters[documents[there]]
        yield "char_end", there & (ends > last), "a row's characters end behind its text"
    for model in view.schema.models:
        ids = columns.get(f"token_{model}")
        if ids is not None:
            vocabulary = view.schema.vocabulary.get(model, LARGEST_ID + 1)
            what = f"a token id is not within 0-{vocabulary - 1:,}"
            yield f"token_{model}", (ids < 0) | (ids >= vocabulary), what
