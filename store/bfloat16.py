"""bfloat16 for numpy and for zarr-python, under its standard extension name.

zarr-python 3.1 knows no bfloat16. The zarr-extensions name is `bfloat16`; numpy's side of it is
`ml_dtypes.bfloat16`. tensorstore reads and writes the same arrays. Importing this module is
enough; it may be imported any number of times.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import ml_dtypes
import numpy as np
from jaxtyping import Float32
from zarr.core.dtype.npy.float import BaseFloat
from zarr.dtype import data_type_registry

NATIVE = np.dtype(ml_dtypes.bfloat16)
INFINITE = 0x7F80  # without its sign; a NaN is above it
FINITE_PIECE = 1 << 18


@dataclass(frozen=True, kw_only=True)
class BFloat16(BaseFloat[Any, Any]):
    """bfloat16 as a zarr v3 data type; endianness comes from the `bytes` codec."""

    dtype_cls = type(NATIVE)
    _zarr_v3_name = "bfloat16"
    _zarr_v2_names: ClassVar[tuple[str, ...]] = ()

    @property
    def item_size(self) -> int:
        """Bytes per value."""
        return NATIVE.itemsize

    def to_native_dtype(self) -> Any:
        """`ml_dtypes.bfloat16` in this machine's byte order: the only one ml_dtypes has."""
        return NATIVE

    def _check_scalar(self, data: object) -> Any:
        return isinstance(data, ml_dtypes.bfloat16) or super()._check_scalar(data)


data_type_registry.register(BFloat16._zarr_v3_name, BFloat16)


def widened(values: np.ndarray) -> Float32[np.ndarray, ...]:
    """bfloat16 as float32, exactly; by integer arithmetic, which numpy vectorises."""
    bits = values.view(np.uint16).astype(np.uint32)
    bits <<= 16
    return bits.view(np.float32)


def narrowed(values: Float32[np.ndarray, ...]) -> np.ndarray:
    """float32 as bfloat16, to nearest even; finite values only."""
    bits = values.view(np.uint32)
    return ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype(np.uint16).view(NATIVE)


def all_finite(values: np.ndarray) -> bool:
    """Whether bfloat16 values hold neither NaN nor infinity; at the speed of a copy or so."""
    bits = values.reshape(-1).view(np.uint16)
    pieces = range(0, len(bits), FINITE_PIECE)
    return all(int((bits[p : p + FINITE_PIECE] & 0x7FFF).max()) < INFINITE for p in pieces)
