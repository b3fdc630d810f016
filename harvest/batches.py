"""Groups windows of similar length into forward passes. A pure function of the lengths.

Longest first: a pass that does not fit into memory fails at the start of a block.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64


def pack(
    lengths: Int64[np.ndarray, " windows"], batch_tokens: int
) -> list[Int64[np.ndarray, " batch"]]:
    """Window numbers of each batch: every window once, count x longest <= batch_tokens.

    A window longer than `batch_tokens` gets a batch of its own.
    """
    order = np.argsort(-lengths, kind="stable")
    batches = []
    start = 0
    while start < len(order):
        size = max(1, batch_tokens // max(1, int(lengths[order[start]])))
        batches.append(order[start : start + size])
        start += size
    return batches


def padding(lengths: Sequence[Int64[np.ndarray, " windows"]], batch_tokens: int) -> float:
    """Share of the positions of all forward passes that hold no token; `lengths` per model."""
    used = positions = 0
    for one in lengths:
        used += int(one.sum())
        positions += sum(len(batch) * int(one[batch[0]]) for batch in pack(one, batch_tokens))
    return 1 - used / max(1, positions)
