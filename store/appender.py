"""A zarr array that grows by rows and can be cut back to any committed length.

Full chunks are written as they fill; `write_tail` writes the last, partly filled one padded with
zeros. The bytes on disk are a function of the rows alone, whatever the pieces they arrived in.
The array's metadata follows by `write_shape`, once the rows are committed.
"""

from __future__ import annotations

import shutil
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from store.chunks import check_chunk, write_chunk
from store.files import write_json
from store.layout import Layout, zarr_codecs
from store.schema import chunk_file


class ArrayAppender:
    """Appends rows to the array in `folder`, from `rows` onwards."""

    def __init__(self, folder: Path, layout: Layout, rows: int) -> None:
        self.folder = folder
        self.rows = rows
        self._layout = layout
        # Stored rows, so that a row which is lossily encoded is encoded once.
        self._buffer = np.zeros((layout.rows, *layout.stored_shape), layout.stored_dtype)
        self._dirty = False
        self._cut_back(rows % layout.rows)

    def append(self, values: np.ndarray) -> None:
        """Appends `values` (rows, *row_shape), writing every chunk that becomes full."""
        self.append_stored(self._layout.to_stored(values))

    def append_stored(self, stored: np.ndarray) -> None:
        """Appends rows that are encoded already (rows, *stored_shape)."""
        start = 0
        while start < len(stored):
            filled = self.rows % self._layout.rows
            take = min(self._layout.rows - filled, len(stored) - start)
            self._buffer[filled : filled + take] = stored[start : start + take]
            self._dirty = True
            if filled + take == self._layout.rows:
                self._write()
            self.rows += take
            start += take

    def write_tail(self) -> None:
        """Makes everything appended so far durable."""
        if self._dirty:
            self._buffer[self.rows % self._layout.rows :] = 0
            self._write()

    def write_shape(self) -> None:
        """Tells other zarr clients of the rows."""
        write_json(self.folder / "zarr.json", array_metadata(self._layout, self.rows))

    def _cut_back(self, filled: int) -> None:
        """Forgets what a killed writer left behind the first `rows` rows."""
        if filled:
            found = check_chunk(self._file(), self._layout)
            self._buffer[:filled] = found[:filled]
            self._dirty = bool(found[filled:].view(np.uint8).any())
        chunks = -(-self.rows // self._layout.rows)
        for stray in (self.folder / "c").glob("*"):
            if not stray.name.isdecimal() or int(stray.name) >= chunks:
                shutil.rmtree(stray) if stray.is_dir() else stray.unlink()

    def _write(self) -> None:
        write_chunk(self._file(), self._buffer, self._layout)
        self._dirty = False

    def _file(self) -> Path:
        return chunk_file(
            self.folder, self.rows // self._layout.rows, 1 + len(self._layout.row_shape)
        )


def array_metadata(layout: Layout, rows: int) -> dict[str, Any]:
    """The array's zarr.json: what zarr-python itself writes for `rows` rows."""
    return {**_metadata(layout), "shape": [rows, *layout.row_shape]}


@lru_cache(maxsize=64)
def _metadata(layout: Layout) -> dict[str, Any]:
    chunk_shape = (layout.rows, *layout.row_shape)
    array = zarr.create_array(
        store={},
        shape=chunk_shape,
        chunks=chunk_shape,
        dtype=layout.dtype,
        fill_value=0,
        **zarr_codecs(layout),
    )
    return array.metadata.to_dict()
