"""Exact top-k of a large array on a device that must not be waited for: by way of blocks' maxima.

The k largest of an array lie in the k blocks with the largest maxima: a block that holds one of
them has a maximum among the k largest, or equal to the smallest of them. So one pass takes the
maxima, and what is selected from are these and then k blocks, not the array. Sizes depend on k
alone, so nothing is asked of the device. At 4,096 rows of 131,072 features and k 200 it is
17 M maxima and 26 M scores in place of 537 M.
"""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor

from train.dictionary.sparse_products import runs_kernels

BLOCK = 32  # features; small blocks have many maxima, large ones hold many scores


def largest_of_blocks(
    pre_BF: Float[Tensor, "batch features"], scale_F: Float[Tensor, " features"], count: int
) -> tuple[Int[Tensor, " count"], Float[Tensor, " count"], Float[Tensor, ""]]:
    """Positions, ascending, of the `count` largest scores relu(pre) * scale, these, their smallest.

    Scores of zero fill up where fewer are positive. Of equal scores any may be taken.
    """
    features = len(scale_F)
    if features % BLOCK or count >= pre_BF.numel() // BLOCK:
        top = (pre_BF * scale_F).relu_().view(-1).topk(count, sorted=False)
        found = top.indices
    else:
        chosen = block_maxima(pre_BF, scale_F).topk(count, sorted=False).indices
        scores = pre_BF.reshape(-1, BLOCK)[chosen]
        scores = scores.mul_(scale_F.view(-1, BLOCK)[chosen % (features // BLOCK)]).relu_()
        top = scores.view(-1).topk(count, sorted=False)
        found = chosen[top.indices // BLOCK] * BLOCK + top.indices % BLOCK
    flat, order = found.sort()
    return flat, top.values[order], top.values.min()


def block_maxima(
    pre_BF: Float[Tensor, "batch features"], scale_F: Float[Tensor, " features"]
) -> Float[Tensor, " blocks"]:
    """The largest score of every BLOCK neighbours, in one pass; features % BLOCK is 0."""
    if runs_kernels(pre_BF):
        from train.dictionary import triton_kernels

        return triton_kernels.block_maxima(pre_BF, scale_F, BLOCK)
    return (pre_BF * scale_F).relu_().view(-1, BLOCK).amax(dim=1)
