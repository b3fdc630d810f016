"""The sparse products of train.dictionary.sparse_products as Triton kernels, for CUDA.

One program per row (and block of the width) walks its entries in order: no atomics, so a sum is the
same on every run. Sums are in float32, of float64 values in float64. Imported only where Triton is.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

LARGEST_BLOCK = 1024


@triton.jit
def _gather_sum(starts, places, values, dense, out, width, BLOCK: tl.constexpr, SUM: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    here = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = here < width
    total = tl.zeros((BLOCK,), SUM)
    for entry in range(tl.load(starts + row), tl.load(starts + row + 1)):
        place = tl.load(places + entry)
        value = tl.where(place >= 0, tl.load(values + entry), 0.0).to(SUM)
        part = tl.load(dense + tl.maximum(place, 0) * width + here, mask=inside, other=0.0)
        total += value * part.to(SUM)
    tl.store(out + row * width + here, total, mask=inside)


@triton.jit
def _products_at(starts, places, left, right, out, width, BLOCK: tl.constexpr, SUM: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    for entry in range(tl.load(starts + row), tl.load(starts + row + 1)):
        place = tl.load(places + entry)
        base = tl.maximum(place, 0) * width
        total = tl.zeros((BLOCK,), SUM)
        for first in range(0, width, BLOCK):
            here = first + tl.arange(0, BLOCK)
            inside = here < width
            mine = tl.load(left + row * width + here, mask=inside, other=0.0).to(SUM)
            total += mine * tl.load(right + base + here, mask=inside, other=0.0).to(SUM)
        tl.store(out + entry, tl.where(place >= 0, tl.sum(total), 0.0))


def gather_sum(
    starts: Int[Tensor, " rows_plus_1"],
    places: Int[Tensor, " entries"],
    values: Float[Tensor, " entries"],
    dense: Float[Tensor, "places width"],
) -> Float[Tensor, "rows width"]:
    """As train.dictionary.sparse_products.gather_sum."""
    rows, width = len(starts) - 1, dense.shape[1]
    out = dense.new_empty(rows, width)
    if rows:
        block, sum_type = _block(width), _sum_type(dense)
        grid = (rows, triton.cdiv(width, block))
        _gather_sum[grid](
            starts, places, values, dense.contiguous(), out, width, BLOCK=block, SUM=sum_type
        )
    return out


def products_at(
    starts: Int[Tensor, " rows_plus_1"],
    places: Int[Tensor, " entries"],
    left: Float[Tensor, "rows width"],
    right: Float[Tensor, "places width"],
) -> Float[Tensor, " entries"]:
    """As train.dictionary.sparse_products.products_at."""
    rows, width = left.shape
    out = left.new_empty(len(places))
    if rows:
        block, sum_type = _block(width), _sum_type(left)
        left, right = left.contiguous(), right.contiguous()
        _products_at[(rows,)](starts, places, left, right, out, width, BLOCK=block, SUM=sum_type)
    return out


def _block(width: int) -> int:
    return min(LARGEST_BLOCK, triton.next_power_of_2(width))


def _sum_type(like: Tensor) -> tl.dtype:
    return tl.float64 if like.dtype == torch.float64 else tl.float32
