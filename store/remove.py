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
    """Removes a store; nothing if there is none. Killed on the way, there is a whole one or none,
    and what is left of it, under another name, goes with the next removal.

    Raises StoreError if something else lies there, or if one of its parts is being written.
    """
    if path.is_symlink():
        raise StoreError(
            f"{path}: is a link to {path.resolve()}; remove the store there yourself, then the link"
        )
    condemned = path.with_name(path.name + TEMPORARY)
    if condemned.exists():
        shutil.rmtree(condemned)
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
