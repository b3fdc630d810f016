"""Ghost gradients (Jermyn & Templeton 2024): dead features fit the residual through exp(pre).

B batch rows, K dead features, D width of a hookpoint.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from train.global_batch import GlobalBatch


def ghost_loss(
    pre_BK: Float[Tensor, "batch dead"],
    W_dec: list[Float[Tensor, "dead _width"]],
    residuals: list[Float[Tensor, "batch _width"]],
    reconstructions: list[Float[Tensor, ""]],
    whole: GlobalBatch | None = None,
) -> Float[Tensor, ""]:
    """The term to add to the loss: its size is that of the reconstruction loss.

    Per hookpoint: ghost = exp(pre) W_dec, each row scaled to half the residual's norm; squared
    error to the residual, mean over rows, scaled to the hookpoint's reconstruction loss. Residuals
    and both scales count as constants. Hookpoints are independent of each other, so that nothing
    of one model reaches features that only another sees.

    pre_BK: pre-activations of the dead features, differentiable. W_dec: their decoder rows per
    writing hookpoint, zeros where it does not see the feature. reconstructions: each hookpoint's
    part of the reconstruction loss. whole: the global batch of which these rows are some, and
    whose means the scale of a hookpoint is made of.
    """
    if pre_BK.shape[1] == 0:
        return pre_BK.new_zeros(())
    # A constant factor per row is lost in the scale below; this one keeps exp from overflowing.
    ghosts_BK = (pre_BK - pre_BK.detach().amax(dim=1, keepdim=True)).exp()
    terms = []
    for W_KD, e_BD, size in zip(W_dec, residuals, reconstructions, strict=True):
        target_BD = e_BD.detach()
        ghost_BD = ghosts_BK @ W_KD
        ghost_BD = (
            ghost_BD * _ratio(target_BD.norm(dim=1), 2 * ghost_BD.detach().norm(dim=1))[:, None]
        )
        error = (target_BD - ghost_BD).square().sum(dim=1).mean()
        size, scale = size.detach(), error.detach()
        if whole is not None:
            size, scale = whole.mean(torch.stack([size, scale])).unbind()
        terms.append(error * _ratio(size, scale))
    return torch.stack(terms).sum()


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    """above / below, 0 where below is 0."""
    return torch.where(below > 0, above / torch.where(below > 0, below, 1), 0)
