"""Rows of local files, one at a time, from any place on; and how many there are.

A row is a record of columns, or a text where a file has no columns. Parquet is read a thousand
rows at a time and a place in it found by its row groups; lines are found by their byte. Only a
.json file that holds one list, and a text file, are read whole.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, NonNegativeInt

from harvest.corpus.files import FileKind, LocalFiles

BATCH_ROWS = 1024
Row = dict[str, Any] | str


class Rows(Protocol):
    """The rows of a source."""

    @property
    def name(self) -> str:
        """What is read now, for error messages."""

    @property
    def row(self) -> int:
        """How many rows of it have been read."""

    def __next__(self) -> Row: ...

    def position(self) -> Any:
        """A JSON value that leads back to this place."""


class Place(BaseModel):
    """Where the next row is: which file, how many of its rows and bytes are done with."""

    model_config = ConfigDict(extra="forbid", strict=True)
    file: NonNegativeInt
    row: NonNegativeInt
    byte: NonNegativeInt


class FileRows:
    """The rows of some files, with the columns that are asked for if they are there.

    Raises ValueError for a position that is none of these files', and what their readers raise.
    """

    def __init__(self, local: LocalFiles, columns: Sequence[str], position: Any | None) -> None:
        place = Place.model_validate(position or {"file": 0, "row": 0, "byte": 0})
        if not _fits(place, local):
            raise ValueError(f"no row of these files starts at {place}")
        self._local, self._columns = local, columns
        self._file, self.row, self._byte = place.file, place.row, place.byte
        self._rows = self._read()

    @property
    def name(self) -> str:
        """The file that is read now."""
        return str(self._local.files[min(self._file, len(self._local.files) - 1)])

    def __next__(self) -> Row:
        return next(self._rows)

    def position(self) -> dict[str, int]:
        """The place of the next row."""
        return Place(file=self._file, row=self.row, byte=self._byte).model_dump()

    def _read(self) -> Iterator[Row]:
        for path in self._local.files[self._file :]:
            rows = _rows(self._local.kind, path, self.row, self._byte, self._columns)
            for row, self._byte in rows:
                self.row += 1
                yield row
            self._file, self.row, self._byte = self._file + 1, 0, 0


def parse_line(kind: FileKind, line: bytes) -> Row:
    """One line of JSON, or of text without its end. Raises ValueError."""
    if kind == "lines":
        return line.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8")
    return _record(json.loads(line.decode("utf-8-sig")))


def count_rows(local: LocalFiles, limit: int | None) -> int:
    """Number of rows, at most `limit`: from parquet's metadata, else by reading lines, ~1 GB/s."""
    counted = (number for path in local.files for number in _counts(local.kind, path))
    if limit is None:
        return sum(counted)
    total = 0
    for number in counted:
        total += number
        if total >= limit:
            return limit
    return total


def label_names(local: LocalFiles, column: str) -> list[str] | None:
    """Names of the numbers in a column that `datasets` wrote to parquet as class labels."""
    if local.kind != "parquet":
        return None
    import pyarrow.parquet

    metadata = pyarrow.parquet.read_schema(local.files[0]).metadata or {}
    features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    return features.get(column, {}).get("names")


def _fits(place: Place, local: LocalFiles) -> bool:
    """Whether a row, or the end, can be at a place: not the proof that it is the right one."""
    if place.file >= len(local.files):
        return place == Place(file=len(local.files), row=0, byte=0)
    path = local.files[place.file]
    if not _has_lines(local.kind, path):
        return place.byte == 0 and place.row <= sum(_counts(local.kind, path))
    return (place.row == 0) == (place.byte == 0) and _is_line_start(path, place.byte)


def _is_line_start(path: Path, byte: int) -> bool:
    """Whether a line starts at this byte, or the file ends there."""
    size = path.stat().st_size
    if byte in (0, size):
        return True
    with path.open("rb") as file:
        file.seek(byte - 1)
        return byte < size and file.read(1) == b"\n"


def _rows(
    kind: FileKind, path: Path, row: int, byte: int, columns: Sequence[str]
) -> Iterator[tuple[Row, int]]:
    """Rows of one file from a place on, and the byte behind each (0 where rows are no lines)."""
    if kind == "parquet":
        return ((record, 0) for record in _parquet(path, row, columns))
    if kind == "text":
        return ((text, 0) for text in ([_text(path)] if row == 0 else []))
    if not _has_lines(kind, path):
        return ((record, 0) for record in islice(_list(path), row, None))
    return _lines(kind, path, byte)


def _lines(kind: FileKind, path: Path, byte: int) -> Iterator[tuple[Row, int]]:
    with path.open("rb") as file:
        file.seek(byte)
        for line in file:
            byte += len(line)
            if line.strip():
                yield parse_line(kind, line), byte


def _parquet(path: Path, row: int, columns: Sequence[str]) -> Iterator[Row]:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        first = 0
        while first < len(groups) and groups[first] <= row:
            row -= groups[first]
            first += 1
        # With a column missing all are read: the error message lists them.
        known = set(columns) <= set(file.schema_arrow.names)
        for batch in file.iter_batches(
            BATCH_ROWS,
            row_groups=list(range(first, len(groups))),
            columns=list(columns) if known else None,
            use_threads=False,
        ):
            yield from batch.slice(min(row, len(batch))).to_pylist()
            row = max(0, row - len(batch))


def _text(path: Path) -> str:
    return path.read_bytes().decode("utf-8")


def _has_lines(kind: FileKind, path: Path) -> bool:
    """Whether a row is a line; not so where a .json file holds one list."""
    if kind != "jsonl":
        return kind == "lines"
    with path.open("rb") as file:
        return not file.read(64).removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"[")


def _list(path: Path) -> Iterator[Row]:
    yield from map(_record, json.loads(path.read_bytes().decode("utf-8-sig")))


def _record(value: Any) -> Row:
    if not isinstance(value, dict | str):
        raise ValueError(f"{type(value).__name__} where an object was expected")
    return value


def _counts(kind: FileKind, path: Path) -> Iterator[int]:
    """Numbers whose sum is the number of rows of a file."""
    if kind == "parquet":
        import pyarrow.parquet

        yield pyarrow.parquet.read_metadata(path).num_rows
    elif kind == "text":
        yield 1
    elif _has_lines(kind, path):
        with path.open("rb") as file:
            yield from (1 for line in file if line.strip())
    else:
        yield sum(1 for _ in _list(path))
