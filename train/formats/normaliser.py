"""The activation normaliser of the dictionary_learning forks, and scale and mean here.

x' = (x - mean) * s with s = target_rms / sqrt(sum_j std_j^2 + 1e-8) per layer; the file also holds
s itself (activation_global_scale), which counts where it is there. NaN means none. There
x_hat = x_hat' / (s + 1e-8) + mean, here x_hat' / s + mean: they differ by 1e-8 / s of x_hat', less
than float32 resolves for s > 0.1; smaller scales are noted.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

KEYS = ("target_rms", "activation_mean", "activation_std", "activation_global_scale")
EPSILON = 1e-8
SEEN_IN_FLOAT32 = 0.1


def read_normaliser(
    tensors: Mapping[str, Tensor], layers: int
) -> tuple[Tensor, list[Tensor], list[str]] | None:
    """Scale (layers,), means (D,) each, and notes; None where there is no normaliser."""
    mean = tensors.get("activation_mean")
    if mean is None or bool(mean.isnan().any()):
        return None
    derived = _derived_scale(tensors, layers)
    given = tensors.get("activation_global_scale")
    scale = derived if given is None else given.reshape(-1).expand(layers).clone()
    notes = []
    if given is not None and given.numel() == layers and not scale.allclose(derived, rtol=1e-3):
        notes.append(
            f"activation_global_scale {scale.tolist()} is not what the standard deviations give "
            f"({derived.tolist()}): the file's own scale is used"
        )
    notes += [
        f"activation scale {float(s):.3g}: reconstructions differ by {EPSILON / float(s):.0e} of "
        "their size from the file's own forward pass, which divides by scale + 1e-8"
        for s in scale
        if s < SEEN_IN_FLOAT32
    ]
    return scale, list(mean.reshape(layers, -1).unbind()), notes


def _derived_scale(tensors: Mapping[str, Tensor], layers: int) -> Tensor:
    std_LD = tensors["activation_std"].reshape(layers, -1)
    target = tensors.get("target_rms", torch.ones(()))
    return target / (std_LD.square().sum(dim=1) + EPSILON).sqrt()


def no_normaliser(shape: tuple[int, ...]) -> dict[str, Tensor]:
    """The four keys where there is none; `shape` is that of the means."""
    nothing = torch.full(shape, torch.nan)
    return dict(zip(KEYS, (torch.ones(()), nothing, nothing.clone(), torch.ones(())), strict=True))


def write_normaliser(scale_L: Tensor, mean_LD: Tensor) -> dict[str, Tensor]:
    """The four keys of layers with these scales and means.

    std is what gives the scale back, the same for every dimension: its spread is not known.
    """
    width = mean_LD.shape[1]
    variance_L = (scale_L.double().pow(-2) - EPSILON).clamp(min=0)
    std_LD = (variance_L / width).sqrt()[:, None].expand(-1, width)
    values = (torch.ones(()), mean_LD.float(), std_LD.float().contiguous(), scale_L.float())
    return dict(zip(KEYS, values, strict=True))
