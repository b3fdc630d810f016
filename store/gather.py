"""Rows out of an arena into a batch: gathered, converted and scaled in one pass over memory.

bfloat16 delivered as it is stored costs one copy. Everything else is worked on in blocks that stay
in a core's cache, so that memory is still read and written once. All in numpy: it holds neither
the interpreter's lock nor threads of its own, so the loader's threads do not fight the trainer's.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Int, UInt32

from store import int8
from store.bfloat16 import narrowed
from store.layout import Layout

BLOCK_BYTES = 1 << 18


def gather(
    stored: np.ndarray,
    layout: Layout,
    index: UInt32[np.ndarray, " rows"] | Int[np.ndarray, " rows"],
    out: np.ndarray,
    scale: float | None,
) -> None:
    """Writes rows `index` of the stored rows, times `scale`, to `out` (rows, width).

    `out` is float32, or int16 for the bits of bfloat16, which a scale rounds anew.
    """
    bits = stored if layout.codec == "int8" else stored.view(np.int16)
    if bits.dtype == out.dtype and scale is None:
        # "clip" writes without a copy; the loader's indices are always inside.
        np.take(bits, index, axis=0, out=out, mode="clip")
        return
    block = max(1, BLOCK_BYTES // (4 * out.shape[1]))
    records = np.empty((block, bits.shape[1]), bits.dtype)
    wide = np.empty((block, out.shape[1]), np.float32)
    for start in range(0, len(index), block):
        here = index[start : start + block]
        rows = np.take(bits, here, axis=0, out=records[: len(here)], mode="clip")
        target = out[start : start + len(here)]
        values = target if out.dtype == np.float32 else wide[: len(here)]
        _widen(rows, layout, values)
        if scale is not None:
            values *= np.float32(scale)
        if out.dtype != np.float32:
            target[...] = narrowed(values).view(np.int16)


def _widen(rows: np.ndarray, layout: Layout, out: np.ndarray) -> None:
    """float32 values of stored rows."""
    if layout.codec == "int8":
        int8.decode_into(rows, out)
        return
    bits = out.view(np.uint32)
    bits[...] = rows.view(np.uint16)
    bits <<= 16
