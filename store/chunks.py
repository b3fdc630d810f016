"""Chunk files: raw little-endian values followed by their crc32c, so that they can be mapped.

A chunk always has its full size on disk; behind the last row of an array it is padded with zeros.
Writing costs one pass for the checksum; mapping costs nothing until pages are touched.
"""

from __future__ import annotations

from pathlib import Path

import google_crc32c
import numpy as np
import torch
from torch import Tensor

from pipeline.errors import StoreError
from store.bfloat16 import NATIVE as BFLOAT16
from store.files import write_atomic

CRC_BYTES = 4


def write_chunk(path: Path, values: np.ndarray) -> None:
    """Writes one full chunk durably. `values` is C-contiguous and little-endian."""
    data = values.reshape(-1).view(np.uint8)
    write_atomic(path, [data.data, google_crc32c.value(data).to_bytes(CRC_BYTES, "little")])


def map_chunk(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Maps a chunk's values, copy-on-write, without reading them. Raises StoreError."""
    expected = int(np.prod(shape)) * dtype.itemsize + CRC_BYTES
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise StoreError(
            f"{path}: chunk is missing; the store is damaged, harvest it again"
        ) from None
    if size != expected:
        raise StoreError(f"{path}: chunk has {size} bytes, expected {expected}; harvest it again")
    # Unlike np.memmap, torch's mapping keeps no file descriptor: open chunks are not limited by it.
    data = torch.from_file(str(path), shared=False, size=expected - CRC_BYTES, dtype=torch.uint8)
    return data.numpy().view(dtype).reshape(shape)


def check_chunk(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Maps a chunk and compares every byte against its checksum. Raises StoreError."""
    values = map_chunk(path, shape, dtype)
    with open(path, "rb") as file:
        file.seek(-CRC_BYTES, 2)
        stored = int.from_bytes(file.read(), "little")
    found = google_crc32c.value(values.reshape(-1).view(np.uint8))
    if stored != found:
        raise StoreError(f"{path}: checksum {found:08x}, expected {stored:08x}: bytes have changed")
    return values


def to_tensor(values: np.ndarray) -> Tensor:
    """A tensor over the same memory; numpy's bfloat16 becomes torch's."""
    if values.dtype == BFLOAT16:
        return torch.from_numpy(values.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(values)


def to_numpy(values: Tensor) -> np.ndarray:
    """An array over the same memory; torch's bfloat16 becomes numpy's."""
    if values.dtype == torch.bfloat16:
        return values.contiguous().view(torch.int16).numpy().view(BFLOAT16)
    return values.contiguous().numpy()
