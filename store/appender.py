"""A zarr array that grows by rows and can be cut back to any committed length.

Full chunks are written as they fill; `flush` writes the last, partly filled one padded with
zeros and brings the array's shape up to date. The bytes on disk after a flush are a function of
the rows alone, whatever the sizes of the pieces they arrived in.
"""

from __future__ import annotations

import shutil
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BytesCodec, Crc32cCodec

from store.chunks import check_chunk, write_chunk
from store.files import write_json
from store.schema import chunk_file


class ArrayAppender:
    """Appends rows of one shape and dtype to the array in `folder`, from `rows` onwards."""

    def __init__(
        self, folder: Path, dtype: np.dtype, row_shape: tuple[int, ...], chunk_rows: int, rows: int
    ) -> None:
        self.folder = folder
        self.rows = rows
        self._dtype = dtype
        self._buffer = np.zeros((chunk_rows, *row_shape), dtype)
        self._dirty = False
        self._cut_back(rows % chunk_rows)

    def append(self, values: np.ndarray) -> None:
        """Appends `values` (rows, *row_shape), writing every chunk that becomes full."""
        chunk_rows = len(self._buffer)
        start = 0
        while start < len(values):
            filled = self.rows % chunk_rows
            take = min(chunk_rows - filled, len(values) - start)
            self._buffer[filled : filled + take] = values[start : start + take]
            self._dirty = True
            if filled + take == chunk_rows:
                self._write()
            self.rows += take
            start += take

    def flush(self) -> None:
        """Makes everything appended so far durable and readable."""
        filled = self.rows % len(self._buffer)
        if self._dirty:
            self._buffer[filled:] = 0
            self._write()
        metadata = _array_metadata(self._buffer.shape, self._dtype)
        shape = [self.rows, *self._buffer.shape[1:]]
        write_json(self.folder / "zarr.json", {**metadata, "shape": shape})

    def _cut_back(self, filled: int) -> None:
        """Forgets what a killed writer left behind the first `rows` rows."""
        if filled:
            found = check_chunk(self._file(), self._buffer.shape, self._dtype)
            self._buffer[:filled] = found[:filled]
            self._dirty = bool(found[filled:].view(np.uint8).any())
        chunks = -(-self.rows // len(self._buffer))
        for stray in (self.folder / "c").glob("*"):
            if int(stray.name) >= chunks:
                shutil.rmtree(stray) if stray.is_dir() else stray.unlink()

    def _write(self) -> None:
        write_chunk(self._file(), self._buffer)
        self._dirty = False

    def _file(self) -> Path:
        return chunk_file(self.folder, self.rows // len(self._buffer), self._buffer.ndim)


@lru_cache(maxsize=64)
def _array_metadata(chunk_shape: tuple[int, ...], dtype: np.dtype) -> dict[str, Any]:
    """What zarr-python itself writes for such an array of one chunk."""
    array = zarr.create_array(
        store={},
        shape=chunk_shape,
        chunks=chunk_shape,
        dtype=dtype,
        serializer=BytesCodec(endian="little"),
        compressors=Crc32cCodec(),
        fill_value=0,
    )
    return array.metadata.to_dict()
