"""Dense products in a narrower type than their factors: bfloat16 beside float32 weights.

What autocast does, for the products of a training step that are worth it: the encoder's, and those
of codes that are kept dense. Weights, gradients, moments, codes and losses stay as they are.
"""

from __future__ import annotations

import torch
from torch import Tensor


def dense_product(left: Tensor, right: Tensor, product_dtype: torch.dtype | None) -> Tensor:
    """left @ right, differentiable, in the type of `left`; None: multiplied in it too."""
    if product_dtype is None:
        return left @ right
    return (left.to(product_dtype) @ right.to(product_dtype)).to(left.dtype)
