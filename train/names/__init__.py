"""The names that users expect, thin over one Crosscoder; for Python users with plain tensors."""

from train.dictionary.feature_partition import FeaturePartition, verify_partition_integrity
from train.names.classes import (
    AutoEncoder,
    AutoEncoderTopK,
    BatchTopKCrossCoder,
    BatchTopKSAE,
    CrossCoder,
    DedicatedFeatureBatchTopKCrossCoder,
    DedicatedFeatureCrossCoder,
    GatedAutoEncoder,
    JumpReluAutoEncoder,
    MatryoshkaBatchTopKSAE,
)
from train.names.dictionary import Dictionary

__all__ = [
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
]
