"""What config.json says of a trained dictionary besides its architecture."""

from __future__ import annotations

from typing import Any

from train.config import TrainConfig
from train.dictionary.crosscoder import Crosscoder
from train.dictionary.partition import Partition
from train.evaluate import Evaluation
from train.recipes.matryoshka import feature_levels


def provenance(name: str, config: TrainConfig, partition: Partition) -> dict[str, Any]:
    """Its recipe, its name in the run, its own settings, the sizes of its nested parts."""
    sizes = nested_sizes(partition, config.matryoshka or [1.0])
    return {
        "recipe": config.recipes[0],
        "name": name,
        **({} if sizes is None else {"group_sizes": sizes}),
        "train": config.model_dump(mode="json"),
    }


def nested_sizes(partition: Partition, shares: list[float]) -> list[int] | None:
    """Features that each nested part has more than the one before (arXiv 2503.17547).

    None without nested parts, and where their features are not consecutive: every group of a
    partition is nested by itself.
    """
    groups = [group for group in partition.groups if group.size]
    if len(shares) == 1 or len(groups) > 1:
        return None
    sizes: list[int] = feature_levels(partition, shares).bincount().tolist()
    return [size for size in sizes if size]


def predicted(dictionary: Crosscoder) -> dict[str, Any]:
    """Of a residual dictionary, the share of each hookpoint's variance that its maps predict."""
    if dictionary.prediction is None:
        return {}
    names = [hookpoint.name for hookpoint in dictionary.hookpoints]
    return {"predicted": dict(zip(names, dictionary.prediction.r2.tolist(), strict=True))}


def figures(validation: Evaluation, dead_fraction: float) -> dict[str, Any]:
    """FVE per hookpoint, L0 and loss on `rows` held-out rows, if there are any; dead features."""
    known: dict[str, Any] = {"dead_fraction": dead_fraction}
    if validation.rows:
        known |= {key: getattr(validation, key) for key in ("fve", "l0", "loss", "rows")}
    return known
