"""What a training step says of itself, as scalars on the device, which is not waited for."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class StepMetrics:
    """Device scalars of one step; fve per writing hookpoint is that of the training batch.

    gradient_norm: before clipping.
    """

    loss: Tensor
    terms: dict[str, Tensor]
    fve: Tensor
    l0: Tensor
    gradient_norm: Tensor


def pack(metrics: StepMetrics) -> Float[Tensor, " scalars"]:
    """All of them in one tensor."""
    scalars = [metrics.loss, metrics.l0, metrics.gradient_norm, *metrics.terms.values()]
    return torch.cat([torch.stack(scalars), metrics.fve])


def unpack(packed: Float[Tensor, " scalars"], terms: list[str]) -> StepMetrics:
    """The metrics again; `terms`: names of the loss's."""
    loss, l0, norm, *others = packed.unbind()
    named = dict(zip(terms, others, strict=False))
    return StepMetrics(loss, named, packed[3 + len(terms) :], l0, norm)
