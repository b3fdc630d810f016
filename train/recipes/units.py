"""Defaults that depend on how long the inputs are, which a dictionary scales to sqrt(mean width).

Penalties, bandwidths and thresholds are published for inputs of norm 1. With inputs s times as
long, codes are s times as large: the reconstruction loss grows as s^2 (un-squared: s), a sum of
f^p as s^p, entropy and L0 not at all; a weight must make up for the difference.
"""

from __future__ import annotations

from typing import Any

from train.config import TrainConfig
from train.dictionary_config import SparsityName

# For inputs of norm 1: what dictionary_learning takes there.
WEIGHTS: dict[SparsityName, float] = {
    "none": 0.0,
    "l1": 0.1,
    "lp": 0.1,
    "entropy": 0.01,
    "l0": 1.0,
}
BANDWIDTH = THRESHOLD = 0.001  # arXiv 2407.14435


def in_units(config: TrainConfig, widths: list[int]) -> TrainConfig:
    """A planned configuration with what it left to the hookpoints' widths."""
    s = (sum(widths) / len(widths)) ** 0.5
    sparsity = config.sparsity or "none"
    power = {"l1": 1.0, "lp": config.p_start}.get(sparsity, 0.0)
    loss_power = 2.0 if config.loss == "squared" else 1.0
    values: dict[str, Any] = {
        "sparsity_weight": WEIGHTS[sparsity] * s ** (loss_power - power),
        "bandwidth": BANDWIDTH * s,
        "threshold_init": THRESHOLD * s,
    }
    left = {key: value for key, value in values.items() if getattr(config, key) is None}
    return config.model_copy(update=left)
