"""Partitions as users write them, and whether full-width weights keep to one.

Public code keeps weights of every hookpoint for every feature and sets those to zero that the
partition forbids; this project's do not exist, so what is brought in has to be looked at first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from pipeline.errors import ConfigError, DictionaryError
from train.dictionary.partition import SHARED, FeatureGroup, Partition

LARGEST_FORBIDDEN = 1e-6
Models = str | tuple[str, ...]


def FeaturePartition(
    features: int, exclusive: Mapping[Models, float], models: Sequence[str] = ("a", "b")
) -> Partition:
    """`features` split into what only some models see, and the rest, which all of them see.

    `exclusive` maps a model, or a tuple of several, to a share of the features (a float, rounded
    to whole features) or to their number (an int): {"a": 0.05, "b": 512, ("a", "c"): 0.1}. Whom it
    does not name has no features of its own. Order: the first model's own, those of several
    models, the shared ones, the other models' own; of two models each sees one window.
    Raises ConfigError.
    """
    if len(set(models)) != len(models) or not models or SHARED in models:
        raise ConfigError(f"models: {', '.join(models)}: needs different names, none {SHARED!r}")
    groups = {}
    for key, size in exclusive.items():
        seers = _seers(key, tuple(models))
        if seers in groups:
            raise ConfigError(f"exclusive: {' and '.join(seers)}: named twice")
        groups[seers] = FeatureGroup("+".join(seers), seers, _size(seers, size, features))
    shared = features - sum(group.size for group in groups.values())
    if shared < 0:
        raise ConfigError(f"exclusive: takes {features - shared:,} of {features:,} features")
    seen = {m for group in groups.values() if group.size for m in group.models}
    blind = [model for model in models if not shared and model not in seen]
    if blind:
        raise ConfigError(f"exclusive: leaves {blind[0]!r} without features; lower a share")
    groups = {seers: group for seers, group in groups.items() if group.size}
    first = [groups.pop((models[0],))] if (models[0],) in groups else []
    several = [groups.pop(seers) for seers in list(groups) if len(seers) > 1]
    own = [groups[(model,)] for model in models if (model,) in groups]
    return Partition((*first, *several, FeatureGroup(SHARED, tuple(models), shared), *own))


def _seers(key: Models, models: tuple[str, ...]) -> tuple[str, ...]:
    """The models of a key, in the order of `models`."""
    named = {key} if isinstance(key, str) else set(key)
    unknown = sorted(named - set(models))
    if unknown or not named:
        what = f"unknown model {unknown[0]!r}" if unknown else "a group without a model"
        raise ConfigError(f"exclusive: {what}; the models are {', '.join(models)}")
    if len(named) == len(models) > 1:
        raise ConfigError(f"exclusive: {' and '.join(models)} are all models; what is left is so")
    return tuple(model for model in models if model in named)


def _size(seers: tuple[str, ...], size: float, features: int) -> int:
    """A number of features from a share or a number."""
    name = " and ".join(seers)
    if isinstance(size, bool) or not isinstance(size, int | float):
        raise ConfigError(
            f"exclusive: {name}: {size!r} is neither a share nor a number of features"
        )
    if isinstance(size, float):
        if not 0 <= size <= 1:
            raise ConfigError(
                f"exclusive: {name}: {size} is no share between 0 and 1 (write {size:.0f} without "
                "a point for a number of features)"
                if math.isfinite(size)
                else f"exclusive: {name}: {size} is no share between 0 and 1"
            )
        return round(features * size)
    if size < 0:
        raise ConfigError(f"exclusive: {name}: {size} features; needs 0 or more")
    return size


@dataclass(frozen=True)
class PartitionIntegrity:
    """The largest magnitude among weights that the partition forbids; 0 where it forbids none."""

    encoder_max: float
    decoder_max: float


def verify_partition_integrity(
    encoder: Sequence[Tensor] | Tensor,
    decoder: Sequence[Tensor] | Tensor,
    partition: Partition,
    hookpoints: Mapping[str, str] | None = None,
) -> PartitionIntegrity:
    """Looks at full-width weights, of every hookpoint (F, d), as lists or as (L, F, d).

    `hookpoints` maps the name of each to its model, in order; by default there is one per model of
    the partition, called like it. Raises DictionaryError if a forbidden weight is above 1e-6 or
    not a number, naming the largest one's hookpoint and feature.
    """
    if hookpoints is None:
        hookpoints = {model: model for group in partition.groups for model in group.models}
    return PartitionIntegrity(
        _largest_forbidden("encoder", encoder, partition, hookpoints),
        _largest_forbidden("decoder", decoder, partition, hookpoints),
    )


def _largest_forbidden(
    side: str,
    weights: Sequence[Tensor] | Tensor,
    partition: Partition,
    hookpoints: Mapping[str, str],
) -> float:
    if len(weights) != len(hookpoints):
        raise DictionaryError(
            f"{side}: weights of {len(weights)} hookpoints, but there are {', '.join(hookpoints)}"
        )
    largest, place = 0.0, ""
    for W_FD, (name, model) in zip(weights, hookpoints.items(), strict=True):
        if W_FD.ndim != 2 or len(W_FD) != partition.features:
            raise DictionaryError(
                f"{side} of {name}: shape {tuple(W_FD.shape)}, the partition has "
                f"{partition.features} features"
            )
        for group in partition.groups:
            if model in group.models or not group.size or not W_FD.shape[1]:
                continue
            start = partition.slices[group.name].start
            each = W_FD.detach()[partition.slices[group.name]].abs().amax(dim=1)
            each = each.nan_to_num(nan=math.inf, posinf=math.inf)
            if float(each.max()) > largest:
                largest = float(each.max())
                place = f"{name}, feature {start + int(each.argmax())} (of group {group.name!r})"
    if largest > LARGEST_FORBIDDEN:
        raise DictionaryError(
            f"{side} of {place}: a weight of {largest:.3g} where the partition forbids any; "
            "this partition is not that of these weights"
        )
    return largest
