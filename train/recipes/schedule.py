"""Schedules as pure functions of the step: learning rate, k, sparsity, when to resample."""

from __future__ import annotations

from train.config import TrainConfig


def base_learning_rate(config: TrainConfig) -> float:
    """The configured rate, or 2e-4 / sqrt(F / 2^14) (Gao et al., arXiv 2406.04093)."""
    return config.lr if config.lr is not None else 2e-4 / (config.features / 2**14) ** 0.5


def learning_rate(step: int, config: TrainConfig) -> float:
    """Linear warm-up from lr / warmup_steps, constant, then linear decay towards 0 at the end.

    After each resampling it warms up again (Bricken et al. 2023).
    """
    begun = last_resample(step, config)
    warm = min(1.0, (step - begun + 1) / max(1, config.warmup_steps))
    decay = 1.0
    if config.decay_start is not None and step >= config.decay_start:
        decay = (config.steps - step) / max(1, config.steps - config.decay_start)
    return base_learning_rate(config) * warm * decay


def is_resample(step: int, config: TrainConfig) -> bool:
    """Whether dead features are resampled before this step.

    Every `resample_every` steps, as long as as many steps follow: what is resampled later would
    hardly be trained, and the run would end in a warm-up.
    """
    every = config.resample_every
    return bool(every and step and step % every == 0 and step + every <= config.steps)


def last_resample(step: int, config: TrainConfig) -> int:
    """The last step up to this one before which dead features were resampled; 0 if none."""
    if config.resample_every is None:
        return 0
    latest = min(step, config.steps - config.resample_every)
    return max(0, latest // config.resample_every * config.resample_every)


def sparsity_warmup(step: int, config: TrainConfig) -> float:
    """Share of the sparsity penalty's weight: linear from 0 to 1 over sparsity_warmup_steps."""
    return min(1.0, step / config.sparsity_warmup_steps) if config.sparsity_warmup_steps else 1.0


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


def threshold_beta(step: int, config: TrainConfig) -> float | None:
    """Decay of the inference threshold's EMA at this step: 0 at its first, None before it."""
    first = threshold_start(config)
    if step < first:
        return None
    return 0.0 if step == first else config.threshold_beta
