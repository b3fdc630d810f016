"""One training run per output folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

from pipeline.errors import DictionaryError
from store.files import make_folder


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps every other training run out of `folder`. Raises DictionaryError."""
    place = folder.resolve()
    make_folder(place.parent)
    # The lock lies beside the folder, so that deleting the folder does not lift it.
    lock = filelock.FileLock(place.with_name(f".{place.name}.lock"), thread_local=False)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise DictionaryError(
            f"{folder}: another training run is writing this folder; "
            "wait for it, or name another folder with --out"
        ) from None
    try:
        yield
    finally:
        lock.release()
