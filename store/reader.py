"""Reads a store: parts are concatenated into one sequence of rows, chunks are mapped, not copied.

Rows are numbered over all parts in order, and so are documents and chunks. Only committed rows
exist. Opening costs a few JSON files; memory stays at what the caller touches.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import BFloat16
from torch import Tensor

from pipeline.errors import StoreError
from store.bfloat16 import NATIVE as BFLOAT16
from store.chunks import map_chunk, to_tensor
from store.documents import Documents
from store.files import read_json
from store.part import read_part
from store.schema import Hookpoint, StoreSchema, chunk_file
from store.statistics import RowStatistics, merge


@dataclass(frozen=True)
class Part:
    """One harvest task's rows, with its attributes as last committed."""

    folder: Path
    attributes: dict[str, Any]

    @property
    def rows(self) -> int:
        """Committed rows."""
        return int(self.attributes["rows"])

    @property
    def document_count(self) -> int:
        """Committed documents."""
        return int(self.attributes["documents"])


class Store:
    """An open activation store. Raises StoreError if `path` holds none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.schema = StoreSchema.from_json(
            read_json(path / "zarr.json").get("attributes", {}), path
        )
        self.parts = _open_parts(path, self.schema)
        rows_per_part = [part.rows for part in self.parts]
        self._part_starts = np.cumsum([0, *rows_per_part])
        counts = [-(-rows // self.schema.chunk_rows) for rows in rows_per_part]
        self._chunk_part = np.repeat(np.arange(len(counts)), counts)
        self._chunk_starts = np.cumsum([0, *counts])

    @property
    def rows(self) -> int:
        """Rows in all parts."""
        return int(self._part_starts[-1])

    @property
    def complete(self) -> bool:
        """Whether every part has been harvested to its end."""
        return bool(self.parts) and all(part.attributes["complete"] for part in self.parts)

    @property
    def chunks(self) -> int:
        """Chunks in all parts."""
        return len(self._chunk_part)

    @cached_property
    def chunk_sizes(self) -> np.ndarray:
        """Rows in each chunk (chunks,), int64; the last of a part may be short."""
        return np.array([self._chunk_place(chunk)[2] for chunk in range(self.chunks)], np.int64)

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

    def activations(self, name: str, chunk: int) -> BFloat16[Tensor, "rows width"]:
        """The rows of one chunk, mapped."""
        hookpoint = self.hookpoint(name)
        part, number, rows = self._chunk_place(chunk)
        file = chunk_file(part.folder / "activations" / name, number, 2)
        shape = (self.schema.chunk_rows, hookpoint.width)
        return to_tensor(map_chunk(file, shape, BFLOAT16))[:rows]

    def column_chunk(self, name: str, chunk: int) -> np.ndarray:
        """One chunk of a row column, int32 (rows,), mapped; documents are numbered per part."""
        part, number, rows = self._chunk_place(chunk)
        file = chunk_file(part.folder / "rows" / name, number, 1)
        return map_chunk(file, (self.schema.chunk_rows,), np.dtype(np.int32))[:rows]

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

    @cached_property
    def documents(self) -> Documents:
        """Texts, labels and hashes of the documents of all parts."""
        return Documents([(part.folder / "documents", part.attributes) for part in self.parts])

    def statistics(self, name: str) -> RowStatistics:
        """Statistics of a hookpoint's rows over all parts."""
        width = self.hookpoint(name).width
        return merge(
            (RowStatistics.from_json(part.attributes["statistics"][name]) for part in self.parts),
            width=width,
        )

    def paired_fraction(self, model: str) -> float:
        """Share of the model's text tokens that became rows."""
        counts = [part.attributes["tokens"][model] for part in self.parts]
        return sum(c["paired"] for c in counts) / max(1, sum(c["read"] for c in counts))

    def part_of_chunk(self, chunk: int) -> Part:
        """The part that a chunk lies in."""
        return self._chunk_place(chunk)[0]

    def chunk_files(self, chunk: int) -> list[tuple[Path, tuple[int, ...], np.dtype]]:
        """File, shape and dtype of a chunk in every array that has one value per row."""
        part, number, _ = self._chunk_place(chunk)
        rows = self.schema.chunk_rows
        activations, columns = part.folder / "activations", part.folder / "rows"
        return [
            *(
                (chunk_file(activations / h.name, number, 2), (rows, h.width), BFLOAT16)
                for h in self.schema.hookpoints
            ),
            *(
                (chunk_file(columns / name, number, 1), (rows,), np.dtype(np.int32))
                for name in self.schema.row_columns
            ),
        ]

    def _chunk_place(self, chunk: int) -> tuple[Part, int, int]:
        """Part, number within the part, and rows of a chunk."""
        part_number = int(self._chunk_part[chunk])
        part = self.parts[part_number]
        number = chunk - int(self._chunk_starts[part_number])
        return (
            part,
            number,
            min(self.schema.chunk_rows, part.rows - number * self.schema.chunk_rows),
        )


def _open_parts(path: Path, schema: StoreSchema) -> list[Part]:
    """Parts in the order of their numbers; a part without a first commit has no attributes yet."""
    folders = sorted(folder for folder in (path / "parts").glob("[0-9]*") if folder.is_dir())
    return [
        Part(folder, read_part(folder, schema))
        for folder in folders
        if (folder / "zarr.json").exists()
    ]
