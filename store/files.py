"""Durable small-file primitives: a file either has its old content or its new one, never half."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipeline.errors import StoreError

TEMPORARY = ".tmp"
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_atomic(path: Path, buffers: Iterable[bytes | memoryview]) -> None:
    """Writes beside `path`, fsyncs, renames over it, and fsyncs the folder.

    An OSError names `path`, says how much room was needed, and leaves nothing beside it.
    """
    temporary = path.with_name(path.name + TEMPORARY)
    pieces: list[bytes | memoryview] = []
    try:
        make_folder(path.parent)
        pieces = list(buffers)
        with open(temporary, "wb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        fsync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise _explained(error, path, pieces) from error


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
        if stray.is_file():
            stray.unlink()


def json_bytes(value: dict[str, Any]) -> bytes:
    """The content of a JSON file; equal values give equal bytes."""
    return json.dumps(value, indent=1, allow_nan=False).encode()


def plain(value: dict[str, Any]) -> dict[str, Any]:
    """The value as its JSON file gives it back: lists for tuples, text for keys."""
    back: dict[str, Any] = json.loads(json_bytes(value))
    return back


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Writes JSON atomically."""
    write_atomic(path, [json_bytes(value)])


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object. Raises StoreError naming the file."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise StoreError(f"{path}: no such file; is this an activation store?") from None
    except (OSError, ValueError, RecursionError) as error:
        raise StoreError(f"{path}: cannot be read as JSON ({error})") from None
    if not isinstance(value, dict):
        raise StoreError(f"{path}: expected a JSON object, got {type(value).__name__}")
    return value


def group_metadata(attributes: dict[str, Any]) -> dict[str, Any]:
    """A zarr v3 group's zarr.json."""
    return {"zarr_format": 3, "node_type": "group", "attributes": attributes}


def write_group(folder: Path, attributes: dict[str, Any]) -> None:
    """Writes a zarr v3 group's metadata."""
    write_json(folder / "zarr.json", group_metadata(attributes))


def _explained(error: OSError, path: Path, pieces: list[bytes | memoryview]) -> OSError:
    """The same error, naming the file and, where room was lacking, how much of it."""
    reason = error.strerror or str(error)
    if error.errno in NO_ROOM:
        needed = sum(memoryview(piece).nbytes for piece in pieces)
        reason += f" ({needed:,} bytes needed"
        with contextlib.suppress(OSError):
            reason += f", {shutil.disk_usage(path.parent).free:,} free"
        reason += ")"
    return OSError(error.errno, reason, str(path))
