"""Batches on their way to a CUDA device, while the device works on earlier ones.

The loader's own threads copy, on a stream of their own, out of pinned buffers; a batch is on the
device before it is asked for, and its pinned buffer is free for the next one.
"""

from __future__ import annotations

import torch
from torch import Tensor


class DeviceCopy:
    """Copies tensors to a CUDA device outside the trainer's stream."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)

    def send(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Waits, in the calling thread alone, until pinned `tensors` are on the device."""
        with torch.cuda.stream(self._stream):
            sent = {name: t.to(self._device, non_blocking=True) for name, t in tensors.items()}
        self._stream.synchronize()
        return sent

    def hand_over(self, tensors: dict[str, Tensor]) -> None:
        """Keeps the memory from being used again before the trainer's stream is done with it."""
        for tensor in tensors.values():
            tensor.record_stream(torch.cuda.current_stream(self._device))
