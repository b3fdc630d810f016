"""The int8 records of store.int8 as a zarr v3 codec: any zarr with this package installed reads it.

In an array's metadata: {"name": "crossdiff.int8_rows", "configuration": {"group": 128}}, an
array -> bytes codec for arrays (rows, width) of bfloat16 chunked along the rows alone. A chunk is
`rows` records without padding; the record is described in store.int8. zarr finds the codec by the
entry point in pyproject.toml; elsewhere a dozen lines of numpy decode it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from zarr.abc.codec import ArrayBytesCodec
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer, NDBuffer
from zarr.core.common import parse_named_configuration
from zarr.registry import register_codec

from store import int8
from store.bfloat16 import NATIVE as BFLOAT16

NAME = "crossdiff.int8_rows"


@dataclass(frozen=True)
class Int8RowsCodec(ArrayBytesCodec):
    """Rows of bfloat16 as int8 records; lossy."""

    is_fixed_size = True

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Int8RowsCodec:
        """From an array's metadata. Raises ValueError for a group size that is not ours."""
        _, configuration = parse_named_configuration(data, NAME)
        if configuration != {"group": int8.GROUP}:
            raise ValueError(f"{NAME} has {configuration}, this version reads group {int8.GROUP}")
        return cls()

    def to_dict(self) -> dict[str, Any]:
        """What an array's metadata says."""
        return {"name": NAME, "configuration": {"group": int8.GROUP}}

    def validate(self, *, shape: tuple[int, ...], dtype: Any, chunk_grid: Any) -> None:
        """Raises ValueError unless the array is (rows, width) of bfloat16 in whole rows."""
        if len(shape) != 2 or dtype.to_native_dtype() != BFLOAT16:
            raise ValueError(f"{NAME} stores (rows, width) of bfloat16, not {shape} of {dtype}")

    async def _decode_single(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        rows, width = chunk_spec.shape
        records = chunk_bytes.as_numpy_array().view(np.uint8).reshape(rows, -1)
        return chunk_spec.prototype.nd_buffer.from_numpy_array(int8.decode(records, width))

    async def _encode_single(self, chunk_array: NDBuffer, chunk_spec: ArraySpec) -> Buffer | None:
        values = np.ascontiguousarray(chunk_array.as_numpy_array())
        records = int8.encode(values).reshape(-1)
        return chunk_spec.prototype.buffer.from_array_like(records.view("B"))

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        """Bytes of a chunk."""
        rows, width = chunk_spec.shape
        return rows * int8.record_bytes(width)


register_codec(NAME, Int8RowsCodec)
