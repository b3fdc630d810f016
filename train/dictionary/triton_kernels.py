"""The sparse products of train.dictionary.sparse_products as Triton kernels, for CUDA.

One program per row walks its entries in order, a few at a time: no atomics, so a sum is the same on
every run. Sums are in float32, of float64 values in float64. Imported only where Triton is.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

LARGEST_BLOCK = 1024  # columns of a program of _gather_sum
TILE = 16384  # values that a program of the others holds at a time, at least one row of them
WARP = 1024  # values of a tile for each warp


@triton.jit
def _gather_sum(
    starts,
    places,
    values,
    dense,
    out,
    width,
    BLOCK: tl.constexpr,
    ENTRIES: tl.constexpr,
    SUM: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    here = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = here < width
    total = tl.zeros((BLOCK,), SUM)
    stop = tl.load(starts + row + 1)
    for first in range(tl.load(starts + row), stop, ENTRIES):
        entry = first + tl.arange(0, ENTRIES)
        place = tl.load(places + entry, mask=entry < stop, other=-1)
        value = tl.load(values + entry, mask=place >= 0, other=0.0).to(SUM)
        tile = tl.load(
            dense + place[:, None] * width + here[None, :],
            mask=(place >= 0)[:, None] & inside[None, :],
            other=0.0,
        )
        total += tl.sum(value[:, None] * tile.to(SUM), axis=0)
    tl.store(out + row * width + here, total, mask=inside)


@triton.jit
def _products_at(
    starts,
    places,
    left,
    right,
    out,
    width,
    BLOCK: tl.constexpr,
    ENTRIES: tl.constexpr,
    SUM: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    here = tl.arange(0, BLOCK)
    inside = here < width
    mine = tl.load(left + row * width + here, mask=inside, other=0.0).to(SUM)
    stop = tl.load(starts + row + 1)
    for first in range(tl.load(starts + row), stop, ENTRIES):
        entry = first + tl.arange(0, ENTRIES)
        place = tl.load(places + entry, mask=entry < stop, other=-1)
        tile = tl.load(
            right + place[:, None] * width + here[None, :],
            mask=(place >= 0)[:, None] & inside[None, :],
            other=0.0,
        )
        products = tl.sum(mine[None, :] * tile.to(SUM), axis=1)
        tl.store(out + entry, products, mask=entry < stop)


@triton.jit
def _decode_gradients(
    starts,
    rows,
    order,
    values,
    grad,
    weights,
    grad_values,
    grad_weights,
    width,
    BLOCK: tl.constexpr,
    ENTRIES: tl.constexpr,
    SUM: tl.constexpr,
):
    feature = tl.program_id(0).to(tl.int64)
    here = tl.arange(0, BLOCK)
    inside = here < width
    direction = tl.load(weights + feature * width + here, mask=inside, other=0.0).to(SUM)
    total = tl.zeros((BLOCK,), SUM)
    stop = tl.load(starts + feature + 1)
    for first in range(tl.load(starts + feature), stop, ENTRIES):
        entry = first + tl.arange(0, ENTRIES)
        there = entry < stop
        row = tl.load(rows + entry, mask=there, other=0)
        where = tl.load(order + entry, mask=there, other=0)
        value = tl.load(values + where, mask=there, other=0.0).to(SUM)
        tile = tl.load(
            grad + row[:, None] * width + here[None, :],
            mask=there[:, None] & inside[None, :],
            other=0.0,
        ).to(SUM)
        total += tl.sum(value[:, None] * tile, axis=0)
        tl.store(grad_values + where, tl.sum(tile * direction[None, :], axis=1), mask=there)
    tl.store(grad_weights + feature * width + here, total, mask=inside)


@triton.jit
def _block_maxima(pre, scale, out, blocks, features, SIZE: tl.constexpr, COUNT: tl.constexpr):
    block = tl.program_id(0).to(tl.int64) * COUNT + tl.arange(0, COUNT)
    there = block < blocks
    entry = block[:, None] * SIZE + tl.arange(0, SIZE)[None, :]
    values = tl.load(pre + entry, mask=there[:, None], other=0.0)
    weights = tl.load(scale + entry % features, mask=there[:, None], other=0.0)
    tl.store(out + block, tl.max(tl.maximum(values * weights, 0.0), axis=1), mask=there)


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
        block = min(LARGEST_BLOCK, triton.next_power_of_2(width))
        _gather_sum[(rows, triton.cdiv(width, block))](
            starts,
            places,
            values,
            dense.contiguous(),
            out,
            width,
            BLOCK=block,
            ENTRIES=4,
            SUM=_sum_type(dense),
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
        _products_at[(rows,)](
            starts,
            places,
            left.contiguous(),
            right.contiguous(),
            out,
            width,
            SUM=_sum_type(left),
            **_tile(width),
        )
    return out


def decode_gradients(
    starts: Int[Tensor, " rows_plus_1"],
    rows: Int[Tensor, " entries"],
    order: Int[Tensor, " entries"],
    values: Float[Tensor, " entries"],
    grad: Float[Tensor, "batch width"],
    weights: Float[Tensor, "rows width"],
    grad_values: Float[Tensor, " entries"],
) -> Float[Tensor, "rows width"]:
    """As train.dictionary.sparse_products.decode_gradients, in one pass over `grad`'s rows."""
    features, width = weights.shape
    out = torch.empty_like(weights)
    if features:
        _decode_gradients[(features,)](
            starts,
            rows,
            order,
            values,
            grad.contiguous(),
            weights.contiguous(),
            grad_values,
            out,
            width,
            SUM=_sum_type(weights),
            **_tile(width),
        )
    return out


def block_maxima(
    pre: Float[Tensor, "batch features"], scale: Float[Tensor, " features"], size: int
) -> Float[Tensor, " blocks"]:
    """The largest of relu(pre) * scale of every `size` neighbours; a power of 2 in features."""
    blocks = pre.numel() // size
    out = pre.new_empty(blocks)
    count = TILE // 4 // size
    _block_maxima[(triton.cdiv(blocks, count),)](
        pre.contiguous(), scale, out, blocks, len(scale), SIZE=size, COUNT=count
    )
    return out


def _tile(width: int) -> dict[str, int]:
    """Values of a row, rows at a time, and warps that hold them."""
    block = triton.next_power_of_2(width)
    entries = max(1, min(16, TILE // block))
    return {
        "BLOCK": block,
        "ENTRIES": entries,
        "num_warps": min(16, max(1, block * entries // WARP)),
    }


def _sum_type(like: Tensor) -> tl.dtype:
    return tl.float64 if like.dtype == torch.float64 else tl.float32
