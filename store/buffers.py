"""Batch memory that is used again: fresh memory costs a page fault for every 4 KB written to it.

A buffer comes back by itself once nobody holds the tensor that was handed out, nor any view of
it: whoever keeps a batch keeps its memory, and nothing is ever overwritten under a reader.
"""

from __future__ import annotations

import weakref
from collections import deque

import numpy as np
import torch


class BufferPool:
    """Buffers of one shape, given out as numpy arrays over (pinned) memory."""

    def __init__(self, shape: tuple[int, ...], dtype: type, pin_memory: bool) -> None:
        self._shape = shape
        self._dtype = dtype
        self._pin_memory = pin_memory
        self._free: deque[np.ndarray] = deque()

    def take(self) -> np.ndarray:
        """An uninitialised array of the pool's shape; `torch.from_numpy` of it keeps it taken."""
        try:
            memory = self._free.pop()
        except IndexError:
            memory = self._allocate()
        view = memory.view()
        weakref.finalize(view, self._free.append, memory).atexit = False  # type: ignore[misc]
        return view

    def _allocate(self) -> np.ndarray:
        # numpy asks for huge pages, torch does not; but only torch can pin.
        if self._pin_memory:
            kind = torch.from_numpy(np.empty(0, self._dtype)).dtype
            return torch.empty(self._shape, dtype=kind, pin_memory=True).numpy()
        return np.empty(self._shape, self._dtype)
