"""Defaults that depend on the inputs: their length, which a dictionary scales to sqrt(mean width),
and how many hookpoints there are.

Penalties and bandwidths are published for one input of norm 1. With inputs s times as long, codes
are s times as large: the reconstruction loss grows as s^2 (un-squared: s), a sum of f^p as s^p,
entropy and L0 not at all. The squared loss is a sum over H hookpoints, and a code has H decoder
norms: what normalises codes says whether the penalty grows with them. A weight must make up for
both differences.
"""

from __future__ import annotations

from typing import Any

from train.config import TrainConfig
from train.dictionary.normalization import MIXED_CROSSCODER, MIXED_SAE
from train.dictionary_config import SparsityName

# For one input of norm 1: dictionary_learning's for l1. lp ends sparser than l1 of one weight: as
# p falls, what is left of small codes is cut off.
WEIGHTS: dict[SparsityName, float] = {
    "none": 0.0,
    "l1": 0.1,
    "lp": 0.07,
    "entropy": 0.01,
    "l0": 1.0,
}
GATE = 5 / 3  # a penalty on the gate shrinks nothing that is decoded: as sparse takes more of it
NOT_SAID = (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError)
BANDWIDTH = THRESHOLD = 0.001  # arXiv 2407.14435; thresholds of a dictionary without rows


def in_units(config: TrainConfig, widths: list[int], written: int | None = None) -> TrainConfig:
    """A planned configuration with what it left to the hookpoints.

    `widths`: of all that take part; written: how many of them are reconstructed, None for all.
    """
    s = (sum(widths) / len(widths)) ** 0.5
    hookpoints = len(widths) if written is None else written
    sparsity = config.sparsity or "none"
    power = {"l1": 1.0, "lp": config.p_start}.get(sparsity, 0.0)
    loss_power = 2.0 if config.loss == "squared" else 1.0
    loss_growth = hookpoints if config.loss == "squared" else 1.0
    growth = loss_growth / (_code_scale(config, hookpoints) if power else 1.0)
    gate = GATE if config.activation == "gated" else 1.0
    values: dict[str, Any] = {
        "sparsity_weight": WEIGHTS[sparsity] * gate * growth * s ** (loss_power - power),
        "bandwidth": BANDWIDTH * s,
    }
    left = {key: value for key, value in values.items() if getattr(config, key) is None}
    return config.model_copy(update=left)


def units_of(config: TrainConfig, hookpoints: list[dict[str, Any]]) -> TrainConfig:
    """The same, for hookpoints as a dictionary's description lists them.

    Raises one of NOT_SAID where it does not.
    """
    written = sum(hookpoint.get("writes", True) for hookpoint in hookpoints)
    return in_units(config, [hookpoint["width"] for hookpoint in hookpoints], written)


def _code_scale(config: TrainConfig, hookpoints: int) -> float:
    """What a feature with a decoder norm of 1 at each of so many hookpoints is penalised with."""
    joint = hookpoints**0.5
    scales = {
        "crosscoder": float(hookpoints),
        "sae": joint,
        "mixed": MIXED_SAE * joint + MIXED_CROSSCODER * hookpoints,
    }
    return scales.get(config.code_normalization or "none", 1.0)
