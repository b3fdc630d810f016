"""Tensors kept as JSON, to the bit: what a foreign file holds and a Crosscoder does not."""

from __future__ import annotations

import base64
from typing import Any

import torch
from torch import Tensor

DTYPES = {str(d).removeprefix("torch."): d for d in (
    torch.float64, torch.float32, torch.float16, torch.bfloat16,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
)}  # fmt: skip


def dtype_name(dtype: torch.dtype) -> str:
    """A dtype as text: float32."""
    return str(dtype).removeprefix("torch.")


def pack(tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Tensors as JSON values; not-a-numbers keep their bits."""
    return {
        name: {
            "dtype": dtype_name(value.dtype),
            "shape": list(value.shape),
            "base64": base64.b64encode(
                value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
            ).decode(),
        }
        for name, value in tensors.items()
    }


def unpack(packed: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors again."""
    return {name: _tensor(value) for name, value in packed.items()}


def _tensor(value: dict[str, Any]) -> Tensor:
    data, dtype = bytearray(base64.b64decode(value["base64"])), DTYPES[value["dtype"]]
    flat = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
    return flat.reshape(value["shape"])
