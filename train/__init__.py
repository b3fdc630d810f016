"""Dictionaries, recipes, the loop, checkpoints. Knows nothing of language models or text.

Shapes throughout this package: B batch rows, D width of a hookpoint, F features of the
dictionary, V features that a hookpoint's model sees, H hookpoints, N active entries (codes).

`from train import BatchTopKSAE` and every other name in train.names works; torch is imported when
one of them is asked for.
"""

from __future__ import annotations

import os
from typing import Any

# Linux hands out fresh memory page by page, and a step on a CPU takes and returns arrays of 100 MB:
# with pages of 2 MB it is up to a third faster. torch reads this at its first allocation.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

NAMES = (
    "AutoEncoder",
    "AutoEncoderTopK",
    "BatchTopKCrossCoder",
    "BatchTopKSAE",
    "CrossCoder",
    "DedicatedFeatureBatchTopKCrossCoder",
    "DedicatedFeatureCrossCoder",
    "Dictionary",
    "FeaturePartition",
    "GatedAutoEncoder",
    "JumpReluAutoEncoder",
    "MatryoshkaBatchTopKSAE",
    "verify_partition_integrity",
)


def __getattr__(name: str) -> Any:
    if name not in NAMES:
        raise AttributeError(f"module 'train' has no attribute {name!r}")
    import train.names

    return getattr(train.names, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *NAMES])
