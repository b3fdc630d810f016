"""Dictionaries, recipes, the loop, checkpoints. Knows nothing of language models or text.

Shapes throughout this package: B batch rows, D width of a hookpoint, F features of the
dictionary, V features that a hookpoint's model sees, H hookpoints, N active entries (codes).

`from train import BatchTopKSAE` and every other name in train.names works; torch is imported when
one of them is asked for.
"""

from __future__ import annotations

from typing import Any

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
__all__ = list(NAMES)


def __getattr__(name: str) -> Any:
    if name not in NAMES:
        raise AttributeError(f"module 'train' has no attribute {name!r}")
    import train.names

    return getattr(train.names, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *NAMES])
