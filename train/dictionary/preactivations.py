"""Pre-activations of a batch: dense values without gradient, and the means to differentiate them.

Computing them is the one dense product of a training step; what an activation picks from them is
differentiated through the picked entries alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from train.dictionary.codes import Pattern, Visibility, select_preactivations


@dataclass(frozen=True)
class Preactivations:
    """`dense_BF` = sum over reading hookpoints of x[h] W_enc[h]^T + bias, without gradient.

    hookpoints: input (B, D), encoder weights (V, D) and visibility of each; bias_F may carry
    gradient to more than a parameter (to b_dec, where the encoder subtracts it).
    """

    dense_BF: Float[Tensor, "batch features"]
    bias_F: Float[Tensor, " features"]
    hookpoints: list[tuple[Tensor, Tensor, Visibility]]

    def at(self, pattern: Pattern) -> Float[Tensor, " entries"]:
        """The pattern's entries, differentiable in encoder and bias."""
        return select_preactivations(self.dense_BF, pattern, self.bias_F, self.hookpoints)

    def differentiable(self) -> Float[Tensor, "batch features"]:
        """All entries, differentiable in encoder and bias."""
        return _Whole.apply(self.dense_BF, self.bias_F, *self._flat())

    def _flat(self) -> list[object]:
        flat: list[object] = []
        for x_BD, W_enc_VD, visibility in self.hookpoints:
            flat += [x_BD, W_enc_VD, visibility.features_V]
        return flat


class _Whole(torch.autograd.Function):
    """Hands the dense values on; the gradient goes to encoder weights and bias by dense products.

    The values exist already, so nothing is multiplied twice.
    """

    @staticmethod
    def forward(ctx: Any, dense_BF: Tensor, bias_F: Tensor, *parts: Any) -> Tensor:
        ctx.inputs, ctx.visible = parts[0::3], parts[2::3]
        return dense_BF.view_as(dense_BF)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BF: Tensor) -> tuple[Tensor | None, ...]:
        grads: list[Tensor | None] = []
        for x_BD, visible_V in zip(ctx.inputs, ctx.visible, strict=True):
            mine = grad_BF if len(visible_V) == grad_BF.shape[1] else grad_BF[:, visible_V]
            grads += [None, mine.T @ x_BD, None]
        return (None, grad_BF.sum(dim=0), *grads)
