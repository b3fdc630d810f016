"""A lock that says who holds it: one process at a time, and the name of the one who is in.

The lock is the operating system's and ends with its process. Who holds it stands in a small file
beside it, because taking the lock empties its own; what a killed process left there is overwritten
by the next.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from datetime import datetime
from pathlib import Path

import filelock

from pipeline.errors import StoreError
from store.files import make_folder
from store.schema import part_path


class HeldLock:
    """The lock in `file`; an error says that `what` is being written by its holder."""

    def __init__(self, file: Path, what: Path) -> None:
        self._what = what
        self._holder = file.with_suffix(".holder")
        # The lock belongs to the process: the thread that closes need not be the one that opened.
        self._lock = filelock.FileLock(file, thread_local=False)

    def acquire(self) -> None:
        """Takes the lock at once. Raises StoreError naming the holder if another has it."""
        make_folder(self._holder.parent)
        try:
            self._lock.acquire(timeout=0)
        except filelock.Timeout:
            raise StoreError(
                f"{self._what}: {_named(self._holder)} is writing here; wait for it, or stop it"
            ) from None
        self._sign()

    def release(self) -> None:
        """Lets another have the lock."""
        if self._lock.is_locked:
            with contextlib.suppress(OSError):
                self._holder.unlink()
        self._lock.release()

    def __enter__(self) -> HeldLock:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _sign(self) -> None:
        now = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": now}
        with contextlib.suppress(OSError):  # the lock holds without a name, too
            self._holder.write_text(json.dumps(holder))


def part_lock(path: Path, part: int) -> HeldLock:
    """The lock of a part's writer. It lies beside the store: deleting that does not lift it."""
    return HeldLock(path.with_name(f".{path.name}.part{part:05d}.lock"), part_path(path, part))


def _named(holder: Path) -> str:
    """Who signed, or "another process" where nobody did who is still alive."""
    try:
        found = json.loads(holder.read_bytes())
        pid, host, since = (found[key] for key in ("pid", "host", "since"))
        if host == socket.gethostname() and not _alive(pid):
            return "another process"
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return "another process"
    return f"process {pid} on {host} (since {since})"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it is somebody else's
    return True
