"""Chunk files: the stored rows of an array, encoded as its layout says, followed by their crc32c.

A chunk always has its full number of rows; behind the last row of an array it is padded with
zeros. Writing costs the codec and one pass for the checksum; mapping costs nothing until pages
are touched; a chunk that cannot be mapped is decoded into RAM.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import torch
from torch import Tensor

from pipeline.errors import StoreError
from store.bfloat16 import NATIVE as BFLOAT16
from store.files import write_atomic
from store.layout import BLOSC, Layout

CRC_BYTES = 4
CRC_PIECE = 1 << 20
PAGE = 4096
REPLACED_TRIES = 8
REMEDY = "see `store verify`; `store verify --repair` cuts the store before the damage"


def write_chunk(path: Path, stored: np.ndarray, layout: Layout) -> None:
    """Writes one full chunk of stored rows durably; they are C-contiguous and little-endian."""
    data = encode_chunk(stored, layout)
    write_atomic(path, [data.data, google_crc32c.value(data).to_bytes(CRC_BYTES, "little")])


def encode_chunk(stored: np.ndarray, layout: Layout) -> np.ndarray:
    """The bytes of stored rows as their chunk file holds them, uint8, without the checksum."""
    data = stored.reshape(-1).view(np.uint8)
    if layout.mapped:
        return data
    return np.frombuffer(_blosc(layout.dtype.itemsize).encode(data), np.uint8)


def map_chunk(path: Path, layout: Layout) -> np.ndarray:
    """The stored rows (layout.rows, *stored_shape), checked for nothing but their size.

    Mapped copy-on-write without being read, or decoded where that is not possible. Raises
    StoreError.
    """
    return _stored_rows(path, _map_file(path, layout), layout)


def check_chunk(path: Path, layout: Layout) -> np.ndarray:
    """As `map_chunk`, with every byte compared against the checksum. Raises StoreError."""
    data = _map_file(path, layout)
    compare_checksum(path, data[:-CRC_BYTES], data[-CRC_BYTES:].tobytes())
    return _stored_rows(path, data, layout)


def decode_chunk(path: Path, layout: Layout, check: bool, out: np.ndarray) -> None:
    """Fills `out` uint8 (chunk_bytes,) with the stored rows. Raises StoreError."""
    data = _map_file(path, layout)
    if check:
        compare_checksum(path, data[:-CRC_BYTES], data[-CRC_BYTES:].tobytes())
    if layout.mapped:
        out[:] = data[:-CRC_BYTES]
    else:
        _decode(path, data[:-CRC_BYTES], layout, out)


def compare_checksum(path: Path, encoded: np.ndarray, crc: bytes) -> None:
    """Raises StoreError unless the bytes of a chunk have the checksum that follows them."""
    stored, found = int.from_bytes(crc, "little"), 0
    for start in range(0, len(encoded), CRC_PIECE):
        # In pieces, as the library keeps Python's lock, and pages fetched before it is taken.
        piece = encoded[start : start + CRC_PIECE]
        np.bitwise_or.reduce(piece[::PAGE])
        found = google_crc32c.extend(found, piece)
    if stored != found:
        raise StoreError(
            f"{path}: checksum {found:08x}, expected {stored:08x}: bytes have changed; {REMEDY}"
        )


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


def file_bytes(path: Path, layout: Layout) -> int:
    """Size of a chunk file, compared with what it must be if that is known. Raises StoreError."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise StoreError(f"{path}: chunk cannot be read ({error.strerror}); {REMEDY}") from None
    expected = layout.chunk_bytes + CRC_BYTES
    if size != expected if layout.mapped else size <= CRC_BYTES:
        wanted = f"expected {expected}" if layout.mapped else "too few"
        raise StoreError(f"{path}: chunk has {size} bytes, {wanted}; {REMEDY}")
    return size


def _map_file(path: Path, layout: Layout) -> np.ndarray:
    """The whole file, uint8 (bytes,), mapped copy-on-write."""
    for _ in range(REPLACED_TRIES):
        size, before = file_bytes(path, layout), _identity(path)
        # Unlike np.memmap, torch's mapping keeps no file descriptor: they would soon run out.
        try:
            data = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8).numpy()
        except RuntimeError as error:
            failure = str(error).splitlines()[0]
        else:
            failure = ""
        if _identity(path) == before:  # else a writer has just put a longer one in its place
            break
    if failure:
        raise StoreError(f"{path}: chunk cannot be mapped ({failure}); {REMEDY}")
    return data


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size


def _stored_rows(path: Path, data: np.ndarray, layout: Layout) -> np.ndarray:
    """What a chunk file's bytes hold, in shape; the same memory if that is possible."""
    stored = data[:-CRC_BYTES]
    if not layout.mapped:
        stored = np.empty(layout.chunk_bytes, np.uint8)
        _decode(path, data[:-CRC_BYTES], layout, stored)
    return stored.view(layout.stored_dtype).reshape(layout.rows, *layout.stored_shape)


def _decode(path: Path, encoded: np.ndarray, layout: Layout, out: np.ndarray) -> None:
    _refuse_other_size(path, encoded, layout)
    try:
        _blosc(layout.dtype.itemsize).decode(encoded, out)
    except (RuntimeError, ValueError) as error:
        raise StoreError(f"{path}: chunk cannot be decoded ({error}); {REMEDY}") from None


def _refuse_other_size(path: Path, encoded: np.ndarray, layout: Layout) -> None:
    """A Blosc frame says how much it decodes to, and how long it is itself, in its first bytes."""
    header = encoded[:16].tobytes()
    decoded, frame = (int.from_bytes(header[at : at + 4], "little") for at in (4, 12))
    if len(header) < 16 or decoded != layout.chunk_bytes or frame != len(encoded):
        raise StoreError(
            f"{path}: chunk decodes to {decoded} bytes, expected {layout.chunk_bytes}; {REMEDY}"
        )


@lru_cache(maxsize=8)
def _blosc(itemsize: int) -> Any:
    from numcodecs import Blosc

    shuffles = {"shuffle": Blosc.SHUFFLE}
    return Blosc(**{**BLOSC, "shuffle": shuffles[str(BLOSC["shuffle"])]}, typesize=itemsize)
