"""Chunks of a window side by side, as one array: a batch is gathered from it in one call.

Where chunks are mapped and fill whole pages, each chunk file is mapped into its slot of one
stretch of addresses: no byte is copied and the memory is the page cache's, which the system takes
back when it needs it. Chunks that must be decoded, or that are not whole pages, are read into
their slots. Either way memory is bounded by the window.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import weakref
from pathlib import Path

import numpy as np

from pipeline.errors import StoreError
from store.chunks import CRC_BYTES, compare_checksum, decode_chunk, file_bytes
from store.layout import Layout

MAP_FIXED = 0x10
MAP_FAILED = ctypes.c_void_p(-1).value
MADV_POPULATE_READ = 22  # Linux 5.14: page tables are filled at once, not fault by fault

_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
if _libc is not None:
    _libc.mmap.restype = ctypes.c_void_p
    _libc.mmap.argtypes = [
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_int64,
    ]
    _libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    _libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


class Arena:
    """Room for `slots` chunks of one layout; `rows` are the stored rows of all of them."""

    def __init__(self, layout: Layout, slots: int) -> None:
        self._layout = layout
        whole_pages = layout.chunk_bytes % mmap.PAGESIZE == 0
        self._maps = _libc is not None and layout.mapped and whole_pages
        size = slots * layout.chunk_bytes
        self._memory = _reserved(size) if self._maps else np.empty(size, np.uint8)
        self.rows = self._memory.view(layout.stored_dtype).reshape(-1, *layout.stored_shape)

    def fill(self, slot: int, path: Path, check: bool) -> None:
        """Puts a chunk into its slot, if asked after checking its bytes. Raises StoreError."""
        start = slot * self._layout.chunk_bytes
        memory = self._memory[start : start + self._layout.chunk_bytes]
        if not self._maps:
            decode_chunk(path, self._layout, check, memory)
            return
        crc = _map_over(memory, path, self._layout)
        # Needs no answer: where the kernel cannot do it, pages are faulted in as ever.
        _advise(memory, MADV_POPULATE_READ)
        if check:
            compare_checksum(path, memory, crc)


def read_ahead(path: Path) -> None:
    """Asks the system to have a file in memory soon; says nothing if it cannot."""
    if hasattr(os, "posix_fadvise"):
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except OSError:
            return  # whoever opens the file in earnest says what is wrong with it
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)
        finally:
            os.close(descriptor)


def _reserved(size: int) -> np.ndarray:
    """Addresses for `size` bytes (size,), uint8; they are given back with the last view of them."""
    assert _libc is not None
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    address = _libc.mmap(None, size, mmap.PROT_READ, flags, -1, 0)
    if address == MAP_FAILED:
        raise StoreError(
            f"the loader's window needs {size} bytes of addresses, which the system refuses "
            f"({os.strerror(ctypes.get_errno())}); lower train.window_chunks"
        )
    owner = (ctypes.c_uint8 * size).from_address(address)
    weakref.finalize(owner, _libc.munmap, address, size).atexit = False  # type: ignore[misc]
    memory = np.frombuffer(memoryview(owner), np.uint8)
    memory.flags.writeable = False
    return memory


def _map_over(memory: np.ndarray, path: Path, layout: Layout) -> bytes:
    """Maps a chunk file over its slot and returns the file's checksum. Raises StoreError."""
    assert _libc is not None
    file_bytes(path, layout)  # says what is wrong with a file that is not there
    descriptor = os.open(path, os.O_RDONLY)
    try:
        address = memory.ctypes.data
        mapped = _libc.mmap(
            address,
            len(memory),
            mmap.PROT_READ,
            mmap.MAP_PRIVATE | MAP_FIXED,
            descriptor,
            0,
        )
        if mapped != address:
            raise StoreError(
                f"{path}: chunk cannot be mapped ({os.strerror(ctypes.get_errno())}); "
                "lower train.window_chunks, or raise the system's vm.max_map_count"
            )
        _advise(memory, mmap.MADV_WILLNEED)
        return os.pread(descriptor, CRC_BYTES, len(memory))
    finally:
        os.close(descriptor)


def _advise(memory: np.ndarray, advice: int) -> None:
    assert _libc is not None
    _libc.madvise(memory.ctypes.data, len(memory), advice)
