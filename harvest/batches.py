"""Groups windows of similar length into forward passes. A pure function of the lengths.

Longest first: a pass that does not fit into memory fails at the start of a block.
"""

from __future__ import annotations

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
