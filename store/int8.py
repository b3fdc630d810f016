"""Eight bits a value: each row carries its own scales, one for every GROUP consecutive values.

A stored row is a record of bytes, little-endian: ceil(width / GROUP) float32 scales, then width
int8 values q; x = q * scale of its group, rounded to bfloat16. scale = max|x| of the group / 127,
so the error is at most scale / 2 (and bfloat16's rounding), and zeros stay zeros; a group in
which nothing exceeds 2^-119 becomes zero. Scales are per
row and group because the residual stream's few enormous channels would otherwise cost all others
their bits. 1.03 bytes a value; encoding and decoding a row needs no other row.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, UInt8

from store.bfloat16 import narrowed, widened

GROUP = 128
LEVELS = 127


def groups(width: int) -> int:
    """Scales of a row."""
    return math.ceil(width / GROUP)


def record_bytes(width: int) -> int:
    """Bytes of one stored row."""
    return 4 * groups(width) + width


def encode(values: np.ndarray) -> UInt8[np.ndarray, "rows record"]:
    """Records of bfloat16 rows (rows, width), which must be finite."""
    rows, width = values.shape
    padded = np.zeros((rows, groups(width), GROUP), np.float32)
    padded.reshape(rows, groups(width) * GROUP)[:, :width] = widened(values)
    scales = np.abs(padded).max(axis=2) / np.float32(LEVELS)
    # A scale too small for its own reciprocal would give infinity: such groups become zero.
    usable = scales >= np.finfo(np.float32).tiny
    scales[~usable] = 0
    inverse = np.divide(1, scales, out=np.zeros_like(scales), where=usable)
    padded *= inverse[:, :, None]
    np.rint(padded, out=padded)
    np.clip(padded, -LEVELS, LEVELS, out=padded)
    records = np.empty((rows, record_bytes(width)), np.uint8)
    records[:, : 4 * groups(width)] = scales.astype("<f4").view(np.uint8)
    records[:, 4 * groups(width) :] = (
        padded.reshape(rows, groups(width) * GROUP)[:, :width].astype(np.int8).view(np.uint8)
    )
    return records


def decode(records: UInt8[np.ndarray, "rows record"], width: int) -> np.ndarray:
    """bfloat16 rows (rows, width) of records."""
    values = np.empty((len(records), width), np.float32)
    decode_into(records, values)
    return narrowed(values)


def decode_into(
    records: UInt8[np.ndarray, "rows record"], out: Float[np.ndarray, "rows width"]
) -> None:
    """Writes float32 rows; they are what bfloat16 rounding of `decode` starts from."""
    width = out.shape[1]
    edge = 4 * groups(width)
    scales = np.ascontiguousarray(records[:, :edge]).view("<f4")
    np.copyto(out, records[:, edge:].view(np.int8))
    whole = width - width % GROUP
    if whole:
        grouped = out[:, :whole].reshape(len(out), whole // GROUP, GROUP)
        grouped *= scales[:, : whole // GROUP, None]
    if whole < width:
        out[:, whole:] *= scales[:, -1:]
