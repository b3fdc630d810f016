"""One run per output folder."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

from pipeline.errors import DictionaryError
from store.files import make_folder

GLANCE = 0.5  # seconds: longer than `is_locked` holds it


@contextmanager
def locked(folder: Path, what: str = "training run") -> Iterator[None]:
    """Keeps every other `what` out of `folder`. Raises DictionaryError."""
    file = _lock_file(folder)
    make_folder(file.parent)
    lock = filelock.FileLock(file, thread_local=False)
    try:
        lock.acquire(timeout=GLANCE)
    except filelock.Timeout:
        raise DictionaryError(
            f"{folder}: another {what} is writing this folder; "
            "wait for it, or name another folder with --out"
        ) from None
    try:
        yield
    finally:
        lock.release()


def is_locked(folder: Path) -> bool:
    """Whether somebody has `locked` the folder, as far as this machine can see.

    Asked with a shared lock, held for an instant, that needs no right to write.
    """
    try:
        file = os.open(_lock_file(folder), os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in (errno.EAGAIN, errno.EACCES)
    finally:
        os.close(file)
    return False


def _lock_file(folder: Path) -> Path:
    """Beside the folder, so that deleting the folder does not lift the lock."""
    place = folder.resolve()
    return place.with_name(f".{place.name}.lock")
