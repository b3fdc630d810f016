"""How the rows of one array lie in its chunk files, for each codec; every file ends in a crc32c.

none      the little-endian values themselves: a chunk is mapped, not read
lossless  Blosc: bytes shuffled, then zstd (`BLOSC`): a chunk is decoded whole, into RAM
int8      one record of scales and bytes per row (store.int8): mapped, a row is decoded when used

The *stored rows* of a chunk are what is left when its bytes are decoded: values, or int8 records.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from store import int8
from store.bfloat16 import NATIVE as BFLOAT16
from store.schema import CodecName, Hookpoint

# Of what numcodecs and zarr offer (benchmarks/store.py): 2% from the entropy of bfloat16's parts,
# at five times the speed of what comes as near. One MiB blocks, as small ones cost 10% of the gain.
BLOSC = {"cname": "zstd", "clevel": 1, "shuffle": "shuffle", "blocksize": 1 << 20}
CHUNK_TARGET_BYTES = 16 << 20
COLUMN_TARGET_BYTES = 1 << 20
LEAST_CHUNK_ROWS = 1024  # with any even width this fills whole pages, as store.arena wants


@dataclass(frozen=True)
class Layout:
    """`rows` rows per chunk, each of `row_shape` values of `dtype`; only rows of bfloat16 vectors
    have a codec other than none."""

    rows: int
    row_shape: tuple[int, ...]
    dtype: np.dtype
    codec: CodecName = "none"

    @cached_property
    def stored_dtype(self) -> np.dtype:
        """Type of the stored rows' entries."""
        return np.dtype(np.uint8) if self.codec == "int8" else self.dtype

    @cached_property
    def stored_shape(self) -> tuple[int, ...]:
        """Shape of one stored row."""
        return (int8.record_bytes(self.row_shape[0]),) if self.codec == "int8" else self.row_shape

    @cached_property
    def chunk_bytes(self) -> int:
        """Bytes of a chunk's stored rows, as they are mapped or decoded."""
        return self.rows * math.prod(self.stored_shape) * self.stored_dtype.itemsize

    @property
    def mapped(self) -> bool:
        """Whether a chunk file holds the stored rows as they are."""
        return self.codec != "lossless"

    def to_stored(self, values: np.ndarray) -> np.ndarray:
        """Stored rows (rows, *stored_shape) of values (rows, *row_shape)."""
        return int8.encode(values) if self.codec == "int8" else values

    def from_stored(self, stored: np.ndarray) -> np.ndarray:
        """Values (rows, *row_shape) of stored rows; the same memory unless the codec is int8."""
        return int8.decode(stored, self.row_shape[0]) if self.codec == "int8" else stored


def activation_layout(hookpoint: Hookpoint, chunk_rows: int, codec: CodecName) -> Layout:
    """Layout of a hookpoint's activations."""
    return Layout(chunk_rows, (hookpoint.width,), BFLOAT16, codec)


def default_chunk_rows(hookpoints: Iterable[Hookpoint]) -> int:
    """Rows per chunk where the user names none: a power of two.

    The widest hookpoint's chunks then have 11 to 23 MB in bfloat16: enough for any disk or network
    file system to read at full speed, few enough files, and small enough that the shuffle's window
    holds 256 of them. A function of the widths alone, so that a resumed harvest finds the same.
    """
    widest = max(hookpoint.width for hookpoint in hookpoints)
    rows = CHUNK_TARGET_BYTES / (widest * BFLOAT16.itemsize)
    return max(LEAST_CHUNK_ROWS, 2 ** round(math.log2(rows)))


def default_column_chunks(chunk_rows: int) -> int:
    """Chunks of activations whose rows share a file of each row column: up to 16, for 1 MiB."""
    return max(1, min(16, COLUMN_TARGET_BYTES // (4 * chunk_rows)))


def zarr_codecs(layout: Layout) -> dict[str, Any]:
    """Arguments of `zarr.create_array` that make zarr write and read such chunks."""
    from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec

    from store.int8_codec import Int8RowsCodec

    serializer = Int8RowsCodec() if layout.codec == "int8" else BytesCodec(endian="little")
    compressors = [Crc32cCodec()]
    if layout.codec == "lossless":
        compressors.insert(0, BloscCodec(typesize=layout.dtype.itemsize, **BLOSC))
    return {"serializer": serializer, "compressors": compressors}
