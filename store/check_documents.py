"""Checks a part's documents: every byte against its checksum, every text against its hash.

Cost: two reads of the texts, 40 bytes of memory per document; texts are hashed one by one (about
3 us each, and 1 GB/s of text).
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from pipeline.errors import StoreError
from store.arrays import DOCUMENT_COLUMNS, PartArray, part_arrays
from store.block import document_hash
from store.chunks import check_chunk, file_bytes, map_chunk
from store.extent import Extent
from store.faults import Fault, PartView, Tally, reason, span
from store.schema import TEXT_CHUNK_BYTES

ENDLESS = np.iinfo(np.int64).max


@dataclass(frozen=True)
class DocumentTable:
    """What rows are compared with, per document.

    row_end: the row behind its last, None if the column is damaged; characters: of its text,
    ENDLESS where that is damaged.
    """

    row_end: np.ndarray | None
    characters: np.ndarray


def document_faults(view: PartView, tally: Tally) -> Generator[Fault, None, DocumentTable]:
    """Every fault of the document columns and of the texts; returns what is good of them."""
    arrays = {array.name.removeprefix("documents/"): array for array in part_arrays(view.schema)}
    totals = {"row_end": view.extent.rows, "text_end": view.extent.text_bytes}
    columns: dict[str, np.ndarray | None] = {}
    table = DocumentTable(None, np.full(view.extent.documents, ENDLESS))
    for name in DOCUMENT_COLUMNS:  # row_end first: it tells which rows the other faults concern
        values = yield from _column(view, arrays[name], table, tally)
        if values is not None and name in totals:
            values = yield from _rising(view, arrays[name], values, totals[name])
        columns[name] = values
        table = replace(table, row_end=columns["row_end"])
    for name, names in (("label", view.labels), ("source", len(view.schema.sources))):
        indices = columns[name]
        if indices is not None:
            wrong = (indices < 0) | (indices >= names)
            yield from _wrong(view, arrays[name], wrong, f"no {name} of the {names}", table)
    ends, hashes = columns["text_end"], columns["hash"]
    text = arrays["text"]
    damaged = yield from _text_chunks(view, text, ends, table, tally)
    if ends is None:
        return table
    found, characters = _read_texts(view, text, ends, damaged)
    wrong = characters < 0
    if hashes is not None:
        wrong |= (found != hashes) & (characters != ENDLESS)
    yield from _wrong(view, arrays["hash"], wrong, "the text has another hash", table)
    return replace(table, characters=np.where(wrong, ENDLESS, characters))


def place(view: PartView, first: int, stop: int, table: DocumentTable) -> str:
    """Names documents [first, stop) of the part, and their rows where these are known."""
    named = f"{span('document', first, stop)} of the part"
    if table.row_end is None or stop <= first:
        return named
    start = int(table.row_end[first - 1]) if first else 0
    return f"{named}, {view.rows(start, int(table.row_end[stop - 1]))}"


def _column(
    view: PartView, array: PartArray, table: DocumentTable, tally: Tally
) -> Generator[Fault, None, np.ndarray | None]:
    """A whole column (documents,); None if a chunk of it is damaged."""
    pieces = [np.zeros(0, array.layout.dtype)]
    for chunk in range(array.chunks(view.extent)):
        file = array.file(view.folder, chunk)
        try:
            pieces.append(check_chunk(file, array.layout))
            tally.bytes_read += file_bytes(file, array.layout)
        except StoreError as error:
            first = chunk * array.layout.rows
            stop = min(first + array.layout.rows, view.extent.documents)
            where = place(view, first, stop, table)
            yield Fault(f"{reason(error)} ({where})", array.before(chunk))
    whole = len(pieces) == 1 + array.chunks(view.extent)
    return np.concatenate(pieces)[: view.extent.documents] if whole else None


def _rising(
    view: PartView, array: PartArray, ends: np.ndarray, total: int
) -> Generator[Fault, None, np.ndarray | None]:
    """The column of ends if it rises from 0 to `total`."""
    falls = np.diff(ends, prepend=0) < 0
    last = int(ends[-1]) if len(ends) else 0
    if last == total and not falls.any():
        return ends
    first = int(falls.argmax()) if falls.any() else max(0, len(ends) - 1)
    where = f"{span('document', first, first + 1)} of the part"
    good = Extent(documents=first) if len(ends) else Extent(0, 0, 0)
    yield Fault(f"{view.folder / array.name}: {where}: ends do not rise to {total:,}", good)
    return None


def _wrong(
    view: PartView, array: PartArray, wrong: np.ndarray, what: str, table: DocumentTable
) -> Iterator[Fault]:
    if wrong.any():
        bad = np.flatnonzero(wrong)
        where = place(view, int(bad[0]), int(bad[-1]) + 1, table)
        file = array.file(view.folder, int(bad[0]) // array.layout.rows)
        yield Fault(f"{file}: {what} ({where})", Extent(documents=int(bad[0])))


def _text_chunks(
    view: PartView, text: PartArray, ends: np.ndarray | None, table: DocumentTable, tally: Tally
) -> Generator[Fault, None, set[int]]:
    """Checks every chunk of the texts; returns the damaged ones."""
    damaged = set()
    for chunk in range(text.chunks(view.extent)):
        file = text.file(view.folder, chunk)
        try:
            check_chunk(file, text.layout)
            tally.bytes_read += file_bytes(file, text.layout)
        except StoreError as error:
            damaged.add(chunk)
            where = "" if ends is None else f" ({place(view, *_documents(ends, chunk), table)})"
            yield Fault(f"{reason(error)}{where}", text.before(chunk))
    return damaged


def _documents(ends: np.ndarray, chunk: int) -> tuple[int, int]:
    """First and stop of the documents that have bytes in a chunk of the texts."""
    start, stop = chunk * TEXT_CHUNK_BYTES, min((chunk + 1) * TEXT_CHUNK_BYTES, int(ends[-1]))
    return int(np.searchsorted(ends, start, "right")), int(np.searchsorted(ends, stop)) + 1


def _read_texts(
    view: PartView, text: PartArray, ends: np.ndarray, damaged: set[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Hash and characters of each text; characters are ENDLESS where it lies in damaged chunks."""
    size = text.layout.rows
    hashes = np.zeros(len(ends), np.uint64)
    characters = np.full(len(ends), ENDLESS)

    @lru_cache(maxsize=2)
    def content(chunk: int) -> memoryview:
        return map_chunk(text.file(view.folder, chunk), text.layout).data

    start = 0
    for number, end in enumerate(ends.tolist()):
        chunks = range(start // size, -(-end // size) if end > start else start // size)
        if damaged.isdisjoint(chunks):
            pieces = [
                content(chunk)[max(0, start - chunk * size) : end - chunk * size]
                for chunk in chunks
            ]
            encoded = b"".join(pieces)
            hashes[number] = document_hash(encoded)
            characters[number] = _length(encoded)
        start = end
    return hashes, characters


def _length(encoded: bytes) -> int:
    """Characters of a text; -1 if it is none."""
    try:
        return len(encoded.decode("utf-8", errors="surrogatepass"))
    except UnicodeDecodeError:
        return -1
