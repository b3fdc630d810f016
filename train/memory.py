"""Training that runs out of memory, with what there is to lower."""

from __future__ import annotations

from contextlib import AbstractContextManager

from pipeline.errors import ConfigError
from pipeline.memory import out_of_memory
from train.config import TrainConfig
from train.recipes.presets import planned


def training_memory(config: TrainConfig) -> AbstractContextManager[None]:
    """Raises ConfigError where training the dictionaries of `config` runs out of memory.

    Names no device: several processes, each with its own, must say the same.
    """
    plans = planned(config)
    features = max(plan.config.features for plan in plans)
    fewer = f", or train fewer than {len(plans)} dictionaries at once" if len(plans) > 1 else ""
    return out_of_memory(
        ConfigError,
        "train",
        f"lower train.features (now {features:,}) or train.batch_rows (now "
        f"{config.batch_rows:,}){fewer}; --fresh if the run had begun with other values",
    )
