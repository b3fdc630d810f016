"""Arrays that grow on disk, and a safetensors file of several of them, in bounded memory.

A safetensors file says at its beginning how long each array is, so one that grows first lies in a
file of its own: every byte is written twice and read once. The safetensors file is replaced as a
whole or not at all.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from store.files import write_atomic

DTYPES = {"uint32": "U32", "int32": "I32", "float32": "F32"}


class Spool:
    """An array (rows, *tail) of one dtype, of little-endian bytes in a file."""

    def __init__(self, file: Path, dtype: str, tail: tuple[int, ...] = ()) -> None:
        self.dtype, self.tail, self.length = np.dtype(dtype).newbyteorder("<"), tail, 0
        self._path = file
        self._file = open(file, "wb")  # noqa: SIM115 - closed by `close`

    def append(self, values: np.ndarray) -> None:
        """Adds rows (n, *tail), of any dtype whose values fit."""
        self._file.write(np.ascontiguousarray(values, self.dtype).tobytes())
        self.length += len(values)

    def cut(self, rows: int) -> None:
        """Takes so many rows off its end."""
        self.length -= rows

    def reshape(self, tail: tuple[int, ...]) -> None:
        """The same values as rows of another shape; those that do not fill one are cut off."""
        values = self.length * math.prod(self.tail)
        self.tail, self.length = tail, values // math.prod(tail)

    @property
    def name(self) -> str:
        """Its dtype as safetensors calls it."""
        return DTYPES[self.dtype.name]

    @property
    def nbytes(self) -> int:
        """Bytes of its rows."""
        return self.length * math.prod(self.tail) * self.dtype.itemsize

    def mapped(self) -> memoryview:
        """Its bytes, mapped; nothing more is to be added."""
        self._file.flush()
        if not self.nbytes:
            return memoryview(b"")
        return np.memmap(self._path, np.uint8, "r", shape=(self.nbytes,)).data

    def close(self, remove: bool = True) -> None:
        """Closes the file and removes it."""
        self._file.close()
        if remove:
            self._path.unlink(missing_ok=True)


def write_safetensors(file: Path, arrays: Mapping[str, Spool]) -> None:
    """Writes the arrays, those of wide dtypes first, so that all are aligned in the file."""
    entries, offset = {}, 0
    ordered = sorted(arrays.items(), key=lambda item: -item[1].dtype.itemsize)
    for name, array in ordered:
        end = offset + array.nbytes
        shape = [array.length, *array.tail]
        entries[name] = {"dtype": array.name, "shape": shape, "data_offsets": [offset, end]}
        offset = end
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    pieces = [len(header).to_bytes(8, "little"), header]
    write_atomic(file, [*pieces, *(array.mapped() for _, array in ordered)])
