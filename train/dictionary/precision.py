"""Dense products in a narrower type than their factors, beside float32 weights.

What autocast does, for the products of a training step that are worth it: the encoder's, and those
of codes that are kept dense. Weights, gradients, moments, codes and losses stay as they are.
bfloat16 factors have 8 bits of a product's 24, those of tf32 11; both are summed in float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def dense_product(left: Tensor, right: Tensor, product_dtype: torch.dtype | None) -> Tensor:
    """left @ right, differentiable, in the type of `left`; None: multiplied in it too."""
    if product_dtype is None:
        return left @ right
    return (left.to(product_dtype) @ right.to(product_dtype)).to(left.dtype)


def add_product(
    out: Tensor, left: Tensor, right: Tensor, product_dtype: torch.dtype | None
) -> None:
    """Adds left @ right to `out` in place, without gradient."""
    if product_dtype is None:
        out.addmm_(left, right)
    elif out.is_cuda and hasattr(torch.ops.aten.addmm, "dtype_out"):  # torch 2.8 and later
        narrow = left.to(product_dtype), right.to(product_dtype)
        torch.ops.aten.addmm.dtype_out(out, *narrow, out.dtype, out=out)
    else:
        out += dense_product(left, right, product_dtype)


@contextmanager
def tf32_products(wanted: bool) -> Iterator[None]:
    """Within it, GPUs that have tensor cores multiply float32 in tf32 if that is `wanted`."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if wanted else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
