"""Decoder directions of norm 1 by constrained Adam (Bricken et al. 2023).

Before the optimizer's step, the part of each direction's gradient along the direction is taken out
(it would only be undone, after spoiling Adam's moments); after it, directions are renormalised.
In place and without waiting for the device. V features, D width.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Bool
from torch import Tensor

SMALLEST_NORM = 1e-12  # a direction of zeros stays one


@torch.no_grad()
def project_gradients(weights: Iterable[Tensor]) -> None:
    """Makes each row of every (V, D) weight's gradient orthogonal to the row.

    Gradient clipping, if any, belongs before. Weights without a gradient are left alone.
    """
    for W_VD in weights:
        if W_VD.grad is not None:
            square_V = W_VD.square().sum(dim=1).clamp(min=SMALLEST_NORM**2)
            along_V = (W_VD.grad * W_VD).sum(dim=1) / square_V
            W_VD.grad.addcmul_(along_V[:, None], W_VD, value=-1)


@torch.no_grad()
def normalize_rows(weights: Iterable[Tensor], good: Bool[Tensor, ""] | None = None) -> None:
    """Gives each row of every (V, D) weight the norm 1; leaves all as they are unless `good`."""
    for W_VD in weights:
        norm_V1 = W_VD.norm(dim=1, keepdim=True).clamp(min=SMALLEST_NORM)
        W_VD.div_(norm_V1 if good is None else torch.where(good, norm_V1, 1))
