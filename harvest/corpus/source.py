"""Reads the documents of one source, in order, from the first or from where an earlier run was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, NonNegativeInt

from harvest.corpus.dataset import DatasetRows
from harvest.corpus.document import Document
from harvest.corpus.files import local_files
from harvest.corpus.records import Columns
from harvest.corpus.rows import FileRows, Row, Rows, label_names
from harvest.corpus.standard_input import InputRows
from harvest.reason import first_line, read_errors
from pipeline.errors import CorpusError
from pipeline.specs import SourceSpec


@dataclass(frozen=True)
class Source:
    """A source by its name; `key` is its place in the configuration."""

    name: str
    key: str
    spec: SourceSpec


class SourcePosition(BaseModel):
    """How many documents of a source have been read, and how to find the next."""

    model_config = ConfigDict(extra="forbid", strict=True)
    documents: NonNegativeInt
    rows: Any


class SourceReader:
    """The documents of one source, at most `limit` from its first; `documents` have been read.

    Raises CorpusError if the source cannot be opened, or not at `position`.
    """

    def __init__(self, source: Source, position: SourcePosition | None = None) -> None:
        self._source = source
        self._columns = Columns(source.name, source.key, source.spec)
        self.documents = position.documents if position else 0
        try:
            self._rows, self._label_names = self._open(position)
        except read_errors() as error:
            raise CorpusError(
                f"{source.key}.path: {source.spec.path}: cannot be read ({first_line(error)})"
            ) from None

    def read(self) -> Document | None:
        """The next document, None at the end. Raises CorpusError."""
        row = self._next_row()
        if row is None:
            return None
        rows = self._rows
        return self._columns.document(row, rows.row - 1, rows.name, self._label_names)

    def skip(self) -> bool:
        """Passes over the next document; False at the end. Raises CorpusError."""
        return self._next_row() is not None

    @property
    def position(self) -> SourcePosition:
        """Leads another reader to the next document."""
        return SourcePosition(documents=self.documents, rows=self._rows.position())

    def _open(self, position: SourcePosition | None) -> tuple[Rows, list[str] | None]:
        spec, column = self._source.spec, self._source.spec.label_column
        place = position.rows if position else None
        if spec.path == "-":
            return InputRows(spec, self.documents), None
        if place is None and self.documents:
            raise ValueError("a position that leads nowhere")
        local = local_files(spec, self._source.key)
        if local is not None:
            rows = FileRows(local, self._columns.names, place)
            return rows, label_names(local, column) if column else None
        dataset = DatasetRows(spec, self._columns.names, self.documents, place)
        return dataset, dataset.label_names(column) if column else None

    def _next_row(self) -> Row | None:
        if self.documents == self._source.spec.limit:
            return None
        try:
            row = next(self._rows, None)
        except read_errors() as error:
            raise CorpusError(
                f"{self._source.key}.path: {self._rows.name}: document {self._rows.row} cannot be "
                f"read ({first_line(error)})"
            ) from None
        self.documents += row is not None
        return row
