"""Which device a setting names, and whether it is there."""

from __future__ import annotations

import torch

from pipeline.errors import ConfigError


def resolve_device(name: str, key: str = "train.device") -> torch.device:
    """The device that setting `key` names; auto is CUDA where there is one. Raises ConfigError."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
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
    return device
