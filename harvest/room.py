"""Bytes that a store takes on the disk, and whether they fit there."""

from __future__ import annotations

import contextlib
import shutil
import stat
from pathlib import Path

from harvest.forecast import Forecast
from pipeline.errors import StoreError
from store.arrays import PartArray, part_arrays
from store.extent import Extent
from store.reader import Store
from store.schema import StoreSchema

CHECKSUM_BYTES = 4
# Of real residual streams lossless leaves 60% or more; a disk that cannot hold half is too small.
LEAST_LOSSLESS = 0.5


def store_bytes(schema: StoreSchema, found: Forecast, lossless: float = LEAST_LOSSLESS) -> int:
    """Bytes of a store's chunk files, the last of each array padded, in parts of equal size.

    lossless: what that codec leaves of the activations. A part's metadata and log come on top,
    well below a megabyte.
    """
    of = schema.parts
    part = Extent(-(-found.rows // of), -(-found.documents // of), -(-found.text_bytes // of), 0)
    return of * sum(
        array.chunks(part) * _chunk_bytes(array, lossless) for array in part_arrays(schema)
    )


def refuse_without_room(path: Path, schema: StoreSchema, found: Forecast) -> None:
    """Raises StoreError if the disk cannot hold what is still to be written of the store.

    Counts the whole store, whatever the number of tasks that write it at the same time.
    """
    rows = Store(path).rows if (path / "zarr.json").exists() else 0
    left = max(0.0, 1 - rows / max(1, found.rows))
    refuse_too_large(path, round(left * store_bytes(schema, found)))


def refuse_too_large(store: Path, needed: int) -> None:
    """Raises StoreError if there is less room than `needed` bytes."""
    free = free_bytes(store)
    if needed > free:
        raise StoreError(
            f"{store}: about {needed / 1e9:,.2f} GB are to be written and {free / 1e9:,.2f} GB are "
            "free; free space, choose another run_dir, a smaller store.codec or harvest.rows"
        )


def free_bytes(store: Path) -> int:
    """Room on the disk where the store is, or would be."""
    folder = next(folder for folder in store.absolute().parents if folder.is_dir())
    return shutil.disk_usage(folder).free


def bytes_below(folder: Path) -> int:
    """Bytes of the files below a folder, in which others may be writing."""
    total = 0
    for file in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            status = file.stat()
            total += status.st_size if stat.S_ISREG(status.st_mode) else 0
    return total


def _chunk_bytes(array: PartArray, lossless: float) -> int:
    """Bytes of one of an array's chunk files."""
    share = 1.0 if array.layout.mapped else lossless
    return round(share * array.layout.chunk_bytes) + CHECKSUM_BYTES
