"""Reads the one integer tensor of a foreign `.pt` file; what its pickle may run is never run.

The values are mapped: memory stays at what the caller touches.
"""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor

from pipeline.errors import StoreError

INTEGERS = (torch.int64, torch.int32, torch.int16, torch.uint8)


def read_integers(file: Path) -> Tensor:
    """The tensor in `file`, of any shape and integer dtype. Raises StoreError."""
    try:
        value = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except UnpicklingError:
        raise StoreError(
            f"{file}: not loaded, because it holds something else than tensors, which may be a "
            "program; save the tensor alone with torch.save"
        ) from None
    except Exception as error:  # a damaged archive fails in torch in a dozen ways
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise StoreError(
            f"{file}: cannot be read ({lines[0]}); copy it again, or save it again with torch.save"
        ) from None
    if not isinstance(value, Tensor):
        raise StoreError(f"{file}: holds a {type(value).__name__}; expected one integer tensor")
    if value.dtype not in INTEGERS or value.layout != torch.strided or value.device.type != "cpu":
        raise StoreError(
            f"{file}: holds a {value.dtype} tensor on {value.device}; expected integers, "
            "saved with torch.save"
        )
    return value
