"""Durable small-file primitives: a file either has its old content or its new one, never half."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipeline.errors import StoreError

TEMPORARY = ".tmp"


def write_atomic(path: Path, buffers: Iterable[bytes | memoryview]) -> None:
    """Writes beside `path`, fsyncs, renames over it, and fsyncs the folder.

    An OSError names `path` and leaves nothing beside it.
    """
    make_folder(path.parent)
    temporary = path.with_name(path.name + TEMPORARY)
    try:
        with open(temporary, "wb") as file:
            for buffer in buffers:
                file.write(buffer)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        fsync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise OSError(error.errno, error.strerror, str(path)) from error


def make_folder(folder: Path) -> None:
    """Creates `folder` and its parents; those that are new survive a power cut."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        fsync_folder(folder.parent)


def fsync_folder(folder: Path) -> None:
    """Makes what was created or renamed inside `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_temporaries(folder: Path) -> None:
    """Removes what a killed writer left beside the places of its files."""
    for stray in folder.rglob(f"*{TEMPORARY}"):
        stray.unlink()


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Writes JSON atomically; equal values give equal bytes."""
    write_atomic(path, [json.dumps(value, indent=1, allow_nan=False).encode()])


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object. Raises StoreError naming the file."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise StoreError(f"{path}: no such file; is this an activation store?") from None
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: cannot be read as JSON ({error})") from None
    if not isinstance(value, dict):
        raise StoreError(f"{path}: expected a JSON object, got {type(value).__name__}")
    return value


def write_group(folder: Path, attributes: dict[str, Any]) -> None:
    """Writes a zarr v3 group's metadata."""
    write_json(
        folder / "zarr.json", {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    )
