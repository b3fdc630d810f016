"""Reads a store: parts are concatenated into one sequence of rows, chunks are mapped, not copied.

Rows are numbered over all parts in order, and so are documents and chunks. Only committed rows
exist. Opening costs a few JSON files; memory stays at what the caller touches.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import BFloat16
from torch import Tensor

from pipeline.errors import StoreError
from store.arrays import check_arrays
from store.chunks import map_chunk, to_tensor
from store.documents import Documents
from store.layout import Layout, activation_layout
from store.part import PartState, added, read_part
from store.root import read_root
from store.schema import Hookpoint, StoreSchema, chunk_file, part_path
from store.statistics import RowStatistics, merge


@dataclass(frozen=True)
class Part:
    """One harvest task's rows, as last committed."""

    folder: Path
    state: PartState

    @property
    def rows(self) -> int:
        """Committed rows."""
        return self.state.rows

    @property
    def document_count(self) -> int:
        """Committed documents."""
        return self.state.documents


class Store:
    """An open activation store. Raises StoreError if `path` holds none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.schema = read_root(path)
        self.parts = _open_parts(path, self.schema)
        rows_per_part = np.array([part.rows for part in self.parts], np.int64)
        counts = -(-rows_per_part // self.schema.chunk_rows)
        self._part_starts = np.cumsum([0, *rows_per_part])
        self._chunk_part = np.repeat(np.arange(len(counts)), counts)
        self._chunk_number = np.arange(len(self._chunk_part)) - np.repeat(
            np.cumsum([0, *counts])[:-1], counts
        )
        # Chunks whose checksums were right when first touched; loaders and sweeps share it.
        self.checked = np.zeros(len(self._chunk_part), bool)
        self.column_layout = Layout(self.schema.column_rows, (), np.dtype(np.int32))

    @property
    def rows(self) -> int:
        """Rows in all parts."""
        return int(self._part_starts[-1])

    @property
    def complete(self) -> bool:
        """Whether every part has been harvested to its end."""
        return not self.missing_parts and all(part.state.complete for part in self.parts)

    @property
    def missing_parts(self) -> list[int]:
        """Numbers of the parts that hold nothing yet."""
        there = {part.folder.name for part in self.parts}
        numbers = range(self.schema.parts)
        return [n for n in numbers if part_path(self.path, n).name not in there]

    @property
    def chunks(self) -> int:
        """Chunks in all parts."""
        return len(self._chunk_part)

    @cached_property
    def chunk_sizes(self) -> np.ndarray:
        """Rows in each chunk (chunks,), int64; the last of a part may be short."""
        part_rows = np.diff(self._part_starts)[self._chunk_part]
        before = self._chunk_number * self.schema.chunk_rows
        return np.minimum(part_rows - before, self.schema.chunk_rows)

    @cached_property
    def chunk_rows_before(self) -> np.ndarray:
        """Number of the first row of each chunk (chunks,), int64."""
        return np.cumsum([0, *self.chunk_sizes])[:-1]

    def hookpoint(self, name: str) -> Hookpoint:
        """The hookpoint called `name`. Raises StoreError listing those there are."""
        for hookpoint in self.schema.hookpoints:
            if hookpoint.name == name:
                return hookpoint
        names = ", ".join(hookpoint.name for hookpoint in self.schema.hookpoints)
        raise StoreError(f"{self.path}: no hookpoint {name!r}; it has {names}")

    def activations(
        self, name: str, chunk: int, first: int = 0, last: int | None = None
    ) -> BFloat16[Tensor, "rows width"]:
        """Rows [first, last) of one chunk: mapped, or decoded into RAM if the codec asks for it."""
        file, layout = self.activation_file(name, chunk)
        stored = map_chunk(file, layout)[: self.chunk_sizes[chunk]][first:last]
        return to_tensor(layout.from_stored(stored))

    def activation_layout(self, name: str) -> Layout:
        """How a hookpoint's rows lie in their chunks."""
        return activation_layout(self.hookpoint(name), self.schema.chunk_rows, self.schema.codec)

    def activation_file(self, name: str, chunk: int) -> tuple[Path, Layout]:
        """A hookpoint's chunk file and its layout."""
        folder = self.part_of_chunk(chunk).folder / "activations" / name
        return chunk_file(folder, int(self._chunk_number[chunk]), 2), self.activation_layout(name)

    def column_chunk(self, name: str, chunk: int) -> np.ndarray:
        """A row column for one chunk, int32 (rows,), mapped; documents are numbered per part."""
        first = int(self._chunk_number[chunk]) % self.schema.column_chunks * self.schema.chunk_rows
        rows = map_chunk(self.column_file(name, chunk), self.column_layout)
        return rows[first : first + self.chunk_sizes[chunk]]

    def document_chunk(self, chunk: int) -> np.ndarray:
        """Documents of a chunk's rows, int64 (rows,), numbered over all parts."""
        local = self.column_chunk("document", chunk)
        count = self.part_of_chunk(chunk).document_count
        if len(local) and (local.min() < 0 or local.max() >= count):
            raise StoreError(
                f"{self.path}: chunk {chunk}: a row refers to a document not there; "
                f"run `store verify {self.path}`, then harvest it again"
            )
        return local.astype(np.int64) + self.documents.first_of_part(int(self._chunk_part[chunk]))

    def column(self, name: str) -> np.ndarray:
        """A whole row column (rows,); `document` is numbered over all parts."""
        return self.column_range(name, 0, self.rows)

    def column_range(self, name: str, start: int, stop: int) -> np.ndarray:
        """A row column for rows [start, stop); `document` is numbered over all parts."""
        read = self.document_chunk if name == "document" else lambda c: self.column_chunk(name, c)
        pieces = [read(c)[first:last] for c, first, last in self.chunk_spans(start, stop)]
        return np.concatenate(pieces) if pieces else np.zeros(0, np.int32)

    def chunk_spans(self, start: int, stop: int) -> list[tuple[int, int, int]]:
        """(chunk, first, last) for every chunk that rows [start, stop) touch, rows within it."""
        if start >= stop:
            return []
        before = self.chunk_rows_before
        lowest = int(np.searchsorted(before, start, side="right")) - 1
        highest = int(np.searchsorted(before, stop - 1, side="right"))
        return [
            (
                c,
                max(0, start - int(before[c])),
                min(int(self.chunk_sizes[c]), stop - int(before[c])),
            )
            for c in range(lowest, highest)
        ]

    def chunk_of(self, row: int) -> int:
        """The chunk that a row lies in."""
        return int(np.searchsorted(self.chunk_rows_before, row, side="right")) - 1

    @cached_property
    def documents(self) -> Documents:
        """Texts, labels, sources and hashes of the documents of all parts."""
        parts = [(part.folder / "documents", part.state) for part in self.parts]
        return Documents(parts, self.schema.sources)

    @property
    def excluded(self) -> dict[str, int]:
        """How many rows or documents the harvest left out, by reason."""
        return added(*(part.state.excluded for part in self.parts))

    def statistics(self, name: str) -> RowStatistics:
        """Statistics of a hookpoint's rows over all parts."""
        width = self.hookpoint(name).width
        return merge((part.state.statistics[name] for part in self.parts), width=width)

    def paired_fraction(self, model: str) -> float:
        """Share of the model's text tokens that became rows."""
        counts = [part.state.tokens[model] for part in self.parts]
        return sum(c.paired for c in counts) / max(1, sum(c.read for c in counts))

    def part_of_chunk(self, chunk: int) -> Part:
        """The part that a chunk lies in."""
        return self.parts[int(self._chunk_part[chunk])]

    def chunk_files(self, chunk: int) -> list[tuple[Path, Layout]]:
        """A chunk's file and layout in every array that has one value per row."""
        return [
            *(self.activation_file(h.name, chunk) for h in self.schema.hookpoints),
            *(
                (self.column_file(name, chunk), self.column_layout)
                for name in self.schema.row_columns
            ),
        ]

    def column_file(self, name: str, chunk: int) -> Path:
        """The file that holds a chunk's part of a row column, laid out as `column_layout`."""
        folder = self.part_of_chunk(chunk).folder / "rows" / name
        return chunk_file(folder, int(self._chunk_number[chunk]) // self.schema.column_chunks, 1)


def _open_parts(path: Path, schema: StoreSchema) -> list[Part]:
    """Parts in the order of their numbers; one that was never opened has no attributes yet."""
    folders = [part_path(path, number) for number in range(schema.parts)]
    return [_open_part(folder, schema) for folder in folders if (folder / "zarr.json").exists()]


def _open_part(folder: Path, schema: StoreSchema) -> Part:
    state = read_part(folder, schema)
    check_arrays(folder, schema, state)
    return Part(folder, state)
