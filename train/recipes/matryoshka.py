"""Matryoshka dictionaries (Bussmann et al., arXiv 2503.17547): nested prefixes each reconstruct.

Features have levels; the dictionary of prefix m is made of levels 0..m. Every partition group is
cut by the same shares, so that a Matryoshka DFC is a DFC at every prefix. Level reconstructions
are computed in one decode of codes whose rows are (level, row) pairs: its cost is that of one
decode of all active features, and the decoder gets one gradient, not one per level.
B batch rows, F features, M levels, D width, N entries.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from train.dictionary.codes import Codes, DenseCodes, Pattern, SparseCodes
from train.dictionary.partition import Partition


def feature_levels(partition: Partition, shares: list[float]) -> Int[Tensor, " features"]:
    """Level of every feature (F,) where prefixes have these `shares` of them, growing to 1.

    A group's prefix m has round(shares[m] * its size) features, its first ones: small groups may
    have none at small prefixes.
    """
    levels = []
    for group in partition.groups:
        ends = torch.tensor([round(share * group.size) for share in shares])
        levels.append(torch.searchsorted(ends, torch.arange(group.size), right=True))
    return torch.cat(levels)


def stack_levels(codes: Codes, level_F: Int[Tensor, " features"], levels: int) -> Codes:
    """The same codes as a batch of M * B rows: row m * B + b has row b's codes of level m.

    Sparse codes keep their number of entries and nothing waits for the device; dense ones become
    M times as many.
    """
    if isinstance(codes, DenseCodes):
        numbers_M1 = torch.arange(levels, device=level_F.device)[:, None]
        values = (codes.values * (level_F == numbers_M1)[:, None]).flatten(0, 1)
        return DenseCodes(values, codes.product_dtype)
    pattern = codes.pattern
    level_N = level_F[pattern.columns]
    flat_N, order_N = (pattern.flat + level_N * (pattern.batch * pattern.features)).sort()
    return SparseCodes(
        Pattern(flat_N, levels * pattern.batch, pattern.features),
        codes.values[order_N],
        None if codes.on_HN is None else codes.on_HN[:, order_N],
    )


def prefix_reconstructions(
    stacked: list[Float[Tensor, "levels_batch _width"]],
    b_dec: list[Float[Tensor, " _width"]],
    levels: int,
) -> list[list[Float[Tensor, "batch _width"]]]:
    """x_hat of every prefix, then hookpoint: b_dec plus the levels up to it.

    `stacked`: the decode of `stack_levels`'s codes without bias, per writing hookpoint. The last
    prefix is the whole dictionary's reconstruction. The method's loss is the mean over prefixes.
    """
    running = list(b_dec)
    prefixes = []
    parts = [decoded.unflatten(0, (levels, -1)).unbind(0) for decoded in stacked]
    for number in range(levels):
        running = [x_hat + part[number] for x_hat, part in zip(running, parts, strict=True)]
        prefixes.append(running)
    return prefixes
