"""Registers bfloat16 with zarr-python under its standard extension name.

zarr-python 3.1 knows no bfloat16. The zarr-extensions name is `bfloat16`; numpy's side of it is
`ml_dtypes.bfloat16`. tensorstore reads and writes the same arrays. Importing this module is
enough; it may be imported any number of times.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import ml_dtypes
import numpy as np
from zarr.core.dtype.npy.float import BaseFloat
from zarr.dtype import data_type_registry

NATIVE = np.dtype(ml_dtypes.bfloat16)


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
