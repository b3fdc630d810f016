"""Schedules as pure functions of the step: learning rate and k."""

from __future__ import annotations

from train.config import TrainConfig


def base_learning_rate(config: TrainConfig) -> float:
    """The configured rate, or 2e-4 / sqrt(F / 2^14) (Gao et al., arXiv 2406.04093)."""
    return config.lr if config.lr is not None else 2e-4 / (config.features / 2**14) ** 0.5


def learning_rate(step: int, config: TrainConfig) -> float:
    """Linear warm-up from lr / warmup_steps, constant, then linear decay towards 0 at the end."""
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    decay = 1.0
    if config.decay_start is not None and step >= config.decay_start:
        decay = (config.steps - step) / max(1, config.steps - config.decay_start)
    return base_learning_rate(config) * warm * decay


def active_features(step: int, config: TrainConfig) -> int:
    """k at this step: linear from k_start to k over k_anneal_steps."""
    start = config.k if config.k_start is None else min(config.k_start, config.features)
    if step >= config.k_anneal_steps:
        return config.k
    return round(start + (config.k - start) * step / config.k_anneal_steps)


def threshold_start(config: TrainConfig) -> int:
    """Step at which the EMA of the inference threshold begins."""
    if config.threshold_start is not None:
        return config.threshold_start
    return min(1000, config.steps // 2)
