"""Fused Adam with what a step does around it: learning rate, clipping, leaving out bad batches."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_


def adam(module: nn.Module, rate: float) -> torch.optim.Adam:
    """Adam (0.9, 0.999). On CUDA the rate is a tensor, which a recorded step reads anew."""
    first = next(module.parameters())
    if not first.is_cuda:
        return torch.optim.Adam(module.parameters(), lr=rate, fused=True)
    lr = torch.tensor(rate, dtype=torch.float32, device=first.device)
    return torch.optim.Adam(module.parameters(), lr=lr, fused=True, capturable=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The rate of the steps to come."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def clipped_step(
    optimizer: torch.optim.Optimizer, norm: Tensor, largest: float, good: Tensor
) -> None:
    """A step of gradients of this `norm`, clipped to the `largest`; nothing unless `good`.

    By what fused optimizers know from gradient scaling, as float32: they leave everything as it is
    where infinity was found, and divide gradients in the pass over them that they make anyway.
    """
    scaling = {"found_inf": (~good).to(torch.float32)}
    if norm.dtype == torch.float32:
        scaling["grad_scale"] = (norm / largest).clamp(min=1)
    else:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        clip_grads_with_norm_(parameters, largest, norm)
    for name, value in scaling.items():
        setattr(optimizer, name, value)
    optimizer.step()
