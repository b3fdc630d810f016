"""The sparse products of train.dictionary.sparse_products as Triton kernels, for CUDA.

A program has some columns of a row of the result and walks the row's entries in order, a few at a
time: no atomics, so a sum is the same on every run. Sums are in float32, of float64 values in
float64. Imported only where Triton is.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

# Many small programs keep more of an H100's memory busy than few large ones: these sizes were the
# fastest of those tried at a width of 2,304.
LARGEST_BLOCK = 256  # columns
ENTRIES = 4  # at a time
TILE = 4096  # scores of which a program finds the blocks' maxima


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
    entries,
    BLOCK: tl.constexpr,
    ENTRIES: tl.constexpr,
    SUM: tl.constexpr,
):
    feature = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1).to(tl.int64)
    here = part * BLOCK + tl.arange(0, BLOCK)
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
        products = tl.sum(tile * direction[None, :], axis=1)
        tl.store(grad_values + part * entries + where, products, mask=there)
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
        block = _block(width)
        _gather_sum[(rows, triton.cdiv(width, block))](
            starts,
            places,
            values,
            dense.contiguous(),
            out,
            width,
            BLOCK=block,
            ENTRIES=ENTRIES,
            SUM=_sum_type(dense),
            num_warps=1,
        )
    return out


def decode_gradients(
    starts: Int[Tensor, " rows_plus_1"],
    rows: Int[Tensor, " entries"],
    order: Int[Tensor, " entries"],
    values: Float[Tensor, " entries"],
    grad: Float[Tensor, "batch width"],
    weights: Float[Tensor, "rows width"],
) -> tuple[Float[Tensor, " entries"], Float[Tensor, "rows width"]]:
    """As train.dictionary.sparse_products.decode_gradients, in one pass over `grad`'s rows."""
    features, width = weights.shape
    block = _block(width)
    parts = triton.cdiv(width, block)
    grad_values, grad_weights = values.new_zeros(parts, len(values)), torch.empty_like(weights)
    if features:
        _decode_gradients[(features, parts)](
            starts,
            rows,
            order,
            values,
            grad.contiguous(),
            weights.contiguous(),
            grad_values,
            grad_weights,
            width,
            len(values),
            BLOCK=block,
            ENTRIES=ENTRIES,
            SUM=_sum_type(weights),
            num_warps=1,
        )
    return grad_values.sum(dim=0), grad_weights


def block_maxima(
    pre: Float[Tensor, "batch features"], scale: Float[Tensor, " features"], size: int
) -> Float[Tensor, " blocks"]:
    """The largest of relu(pre) * scale of every `size` neighbours; a power of 2 in features."""
    blocks = pre.numel() // size
    out = pre.new_empty(blocks)
    count = TILE // size
    _block_maxima[(triton.cdiv(blocks, count),)](
        pre.contiguous(), scale, out, blocks, len(scale), SIZE=size, COUNT=count
    )
    return out


def _block(width: int) -> int:
    return min(LARGEST_BLOCK, triton.next_power_of_2(width))


def _sum_type(like: Tensor) -> tl.dtype:
    return tl.float64 if like.dtype == torch.float64 else tl.float32
