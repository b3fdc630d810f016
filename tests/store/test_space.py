"""No room on the disk: one line says what is missing, and nothing that was committed is lost."""

import errno
import multiprocessing
import os
import re
import resource
import signal
import subprocess
from contextlib import contextmanager

import pytest

from store import files
from store.reader import Store
from store.verify import verify
from store.writer import PartWriter

from .machine import Machine

BLOCKS = 6


@pytest.fixture
def write(make_schema, make_block):
    """Writes what is still to write; rows of 8 kB, so that files grow."""
    schema = make_schema(chunk_rows=32, widths=(1000, 3000))
    blocks = [make_block((9, 12), seed=number, schema=schema) for number in range(BLOCKS)]

    def run(path, on_block=lambda number: None):
        with PartWriter(path, schema) as writer:
            for cursor in range(writer.cursor, BLOCKS):
                on_block(cursor)
                writer.append(blocks[cursor], cursor + 1)
            writer.finish()

    return run


def test_a_full_disk_leaves_the_store_at_its_last_commit(
    make_schema, make_block, tmp_path, monkeypatch
):
    path = tmp_path / "store.zarr"
    machine = Machine(monkeypatch, OSError(errno.ENOSPC, "No space left on device"))
    with PartWriter(path, make_schema()) as writer:
        writer.append(make_block((5, 12)), 1)
        machine.left = machine.done + 5
        with pytest.raises(OSError, match="No space"):
            writer.append(make_block((9, 3)), 2)
    assert (Store(path).rows, verify(path).problems) == (17, [])


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_says_which_file_needed_how_much(number, tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError) as error:
        files.write_atomic(tmp_path / "x", [b"four", memoryview(b"1000" * 300)])
    assert (error.value.errno, error.value.filename) == (number, str(tmp_path / "x"))
    assert re.search(r"\(1,204 bytes needed, [\d,]+ free\)$", error.value.strerror)
    assert list(tmp_path.iterdir()) == []


def _limited(write, path, limit, queue) -> None:
    """Writes, from the fourth block on under a limit to the size of files; says what went wrong."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def confine(block):
        if block == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    try:
        write(path, confine)
        queue.put((0, "", ""))
    except OSError as error:
        queue.put((error.errno, error.strerror, error.filename))


@pytest.mark.parametrize("limit", [1 << 20, 100_000, 20_000, 3000])
def test_files_that_may_not_grow_are_one_error_and_later_the_same_bytes(
    limit, write, tmp_path, tree
):
    """The chunk of texts has 1 MiB and a few bytes, so no limit here lets a commit through."""
    path = tmp_path / "store.zarr"
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=_limited, args=(write, path, limit, queue))
    child.start()
    number, text, filename = queue.get()
    child.join()
    assert number == errno.EFBIG
    assert re.fullmatch(r"File too large \([\d,]+ bytes needed, [\d,]+ free\)", text)
    assert filename.startswith(str(path))
    assert (Store(path).rows, verify(path).problems) == (63, [])
    write(path)
    write(tmp_path / "undisturbed.zarr")
    assert tree(path) == tree(tmp_path / "undisturbed.zarr")


@contextmanager
def small_disk(folder, size):
    """A file system in memory of `size` bytes; skips where none may be mounted."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system may be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("kilobytes", [2300, 2700, 3000])
def test_a_store_that_filled_its_disk_continues_when_there_is_room(
    kilobytes, write, tmp_path, tree
):
    with small_disk(tmp_path / "disk", kilobytes << 10) as disk:
        path = disk / "store.zarr"
        with pytest.raises(OSError, match=r"No space left on device \([\d,]+ bytes needed"):
            write(path)
        left = Store(path)
        assert (left.complete, verify(path).problems) == (False, [])
        assert left.rows % 21 == 0
        remount = ["mount", "-o", "remount,size=40m", str(disk)]
        subprocess.run(remount, check=True)
        write(path)
        found = tree(path)
    write(tmp_path / "undisturbed.zarr")
    assert found == tree(tmp_path / "undisturbed.zarr")
    assert kilobytes < 2600 or left.rows > 0
