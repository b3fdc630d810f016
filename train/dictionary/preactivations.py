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
from train.dictionary.precision import dense_product


@dataclass(frozen=True)
class Preactivations:
    """`dense_BF` = sum over reading hookpoints of x[h] W_enc[h]^T + bias, without gradient.

    hookpoints: input (B, D), encoder weights (V, D) and visibility of each; bias_F may carry
    gradient to more than a parameter (to b_dec, where the encoder subtracts it). product_dtype:
    what dense products are multiplied in, where that is another type.
    """

    dense_BF: Float[Tensor, "batch features"]
    bias_F: Float[Tensor, " features"]
    hookpoints: list[tuple[Tensor, Tensor, Visibility]]
    product_dtype: torch.dtype | None = None

    def at(self, pattern: Pattern) -> Float[Tensor, " entries"]:
        """The pattern's entries, differentiable in encoder and bias."""
        return select_preactivations(self.dense_BF, pattern, self.bias_F, self.hookpoints)

    def differentiable(self) -> Float[Tensor, "batch features"]:
        """All entries, differentiable in encoder and bias."""
        flat = [part for hookpoint in self.hookpoints for part in hookpoint]
        return _Whole.apply(self.dense_BF, self.bias_F, self.product_dtype, *flat)


class _Whole(torch.autograd.Function):
    """Hands the dense values on; the gradient goes to encoder weights and bias by dense products.

    The values exist already, so nothing is multiplied twice.
    """

    @staticmethod
    def forward(
        ctx: Any, dense_BF: Tensor, bias_F: Tensor, dtype: torch.dtype | None, *parts: Any
    ) -> Tensor:
        ctx.dtype = dtype
        ctx.inputs, ctx.visibilities = parts[0::3], parts[2::3]
        return dense_BF.view_as(dense_BF)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BF: Tensor) -> tuple[Tensor | None, ...]:
        grads: list[Tensor | None] = []
        for x_BD, visibility in zip(ctx.inputs, ctx.visibilities, strict=True):
            parts = [dense_product(grad_BF[:, run].T, x_BD, ctx.dtype) for run in visibility.runs]
            grads += [None, parts[0] if len(parts) == 1 else torch.cat(parts), None]
        return (None, grad_BF.sum(dim=0), None, *grads)
