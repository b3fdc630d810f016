"""One shard of an activation cache: raw rows in a file, described by the .meta file beside it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import StoreError

# Values of the dtype in a .meta file: torch's name, or numpy's. bfloat16 lies there as int16.
DTYPES: dict[str, tuple[torch.dtype, np.dtype]] = {
    "torch.bfloat16": (torch.bfloat16, np.dtype("<i2")),
    **dict.fromkeys(("torch.float16", "<f2"), (torch.float16, np.dtype("<f2"))),
    **dict.fromkeys(("torch.float32", "<f4"), (torch.float32, np.dtype("<f4"))),
    **dict.fromkeys(("torch.float64", "<f8"), (torch.float64, np.dtype("<f8"))),
}
DEFAULT_DTYPE = "torch.float32"


@dataclass(frozen=True)
class Shard:
    """One file of rows (rows, width)."""

    file: Path
    rows: int
    width: int
    dtype: torch.dtype
    stored: np.dtype

    def read(self, start: int, stop: int) -> Tensor:
        """Rows [start, stop) in the dtype they were saved in (rows, width)."""
        count, before = (stop - start) * self.width, start * self.width * self.stored.itemsize
        # Read, not mapped: a shard of many gigabytes may not be mappable, and may vanish.
        values = np.fromfile(self.file, self.stored, count, offset=before)
        if len(values) != count:
            raise StoreError(f"{self.file}: ends before row {stop}; copy it again")
        return torch.from_numpy(values).view(self.dtype).reshape(-1, self.width)


def open_shard(folder: Path, number: int, width: int) -> Shard:
    """Shard `number` of the cache in `folder`, looked through. Raises StoreError."""
    file, meta_file = (folder / f"shard_{number}.{end}" for end in ("memmap", "meta"))
    meta = read_object(meta_file, "copy the cache again, or finish its collection")
    name, shape = meta.get("dtype", DEFAULT_DTYPE), meta.get("shape")
    if not isinstance(name, str) or name not in DTYPES:
        raise StoreError(f"{meta_file}: dtype {name!r} is not known; known are {', '.join(DTYPES)}")
    if not _is_shape(shape, width):
        raise StoreError(f"{meta_file}: shape {shape!r}, expected [rows, {width}] (d_model)")
    dtype, stored = DTYPES[name]
    expected = shape[0] * width * stored.itemsize
    size = file.stat().st_size if file.is_file() else None
    if size != expected:
        has = "is missing" if size is None else f"has {size} bytes"
        raise StoreError(
            f"{file}: {has}, its .meta says {shape} {name}, {expected} bytes; copy it again"
        )
    return Shard(file, shape[0], width, dtype, stored)


def _is_shape(value: object, width: int) -> TypeGuard[list[int]]:
    if not isinstance(value, list) or len(value) != 2:
        return False
    return all(type(size) is int and size >= 0 for size in value) and value[1] == width


def read_object(file: Path, remedy: str) -> dict[str, Any]:
    """A JSON object of a cache. Raises StoreError ending in `remedy`."""
    try:
        value = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise StoreError(f"{file}: cannot be read as JSON ({reason}); {remedy}") from None
    if not isinstance(value, dict):
        raise StoreError(f"{file}: holds a {type(value).__name__}, not an object; {remedy}")
    return value
