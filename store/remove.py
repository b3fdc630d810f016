"""Takes a store away, unless somebody is writing it."""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack
from pathlib import Path

from pipeline.errors import StoreError
from store.files import TEMPORARY, fsync_folder
from store.holder import part_lock
from store.reader import Store


def remove_store(path: Path) -> None:
    """Removes a store; nothing if there is none. Killed on the way, there is a whole one or none.

    Raises StoreError if something else lies there, or if one of its parts is being written.
    """
    condemned = path.with_name(path.name + TEMPORARY)
    shutil.rmtree(condemned, ignore_errors=True)
    if not path.exists():
        return
    if not (path / "zarr.json").exists():
        raise StoreError(f"{path}: is not a store, so it is not removed; name another run_dir")
    with ExitStack() as locks:
        for part in range(Store(path).schema.parts):
            lock = part_lock(path, part)
            lock.acquire()
            locks.callback(lock.release)
        os.replace(path, condemned)
        fsync_folder(path.parent)
    shutil.rmtree(condemned)
