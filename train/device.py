"""Which device a setting names, and whether it is there; how much memory there is."""

from __future__ import annotations

import os

import torch

from pipeline.errors import ConfigError
from train.ranks import started_together


def resolve_device(name: str, key: str = "train.device") -> torch.device:
    """The device that setting `key` names; auto is CUDA where there is one. Raises ConfigError.

    Of several processes that torchrun started each has a CUDA device of its own.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"{key}: given {name!r}; try auto, cpu or cuda:0") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"{key}: given {name!r}, but this machine has no CUDA device; try cpu")
    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError):  # what torch raises for a device that is not there
        raise ConfigError(
            f"{key}: given {name!r}, which cannot be used on this machine; try auto, cpu or cuda:0"
        ) from None
    if device.type == "cuda" and started_together():
        if device.index is not None:
            raise ConfigError(f"{key}: {name!r} is one device for several processes; try cuda")
        # By number: which device "cuda" is differs between the threads of a process.
        return torch.device("cuda", torch.cuda.current_device())
    return device


def memory_bytes() -> int:
    """Memory of this machine."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
