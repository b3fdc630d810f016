"""A partition splits the features of a dictionary into groups by the models that see them.

`[a: {a}] [shared: {a, b}] [b: {b}]` is a dedicated feature crosscoder (DFC, arXiv 2602.11729); one
shared group is an ordinary crosscoder. Pure arithmetic on plain values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pipeline.errors import ConfigError

DEFAULT_EXCLUSIVE = 0.05
ALIGNMENT, ALIGNED_FROM = 8, 256  # GPUs multiply windows that begin so at twice the speed
SHARED = "shared"
DESIGNATED = "designated"


@dataclass(frozen=True)
class FeatureGroup:
    """`size` consecutive features that exactly these models see."""

    name: str
    models: tuple[str, ...]
    size: int


@dataclass(frozen=True)
class Partition:
    """Groups in the order in which their features are numbered."""

    groups: tuple[FeatureGroup, ...]

    @property
    def features(self) -> int:
        """Features of the dictionary (F)."""
        return sum(group.size for group in self.groups)

    @cached_property
    def slices(self) -> dict[str, slice]:
        """Group name -> its features."""
        ends = np.cumsum([group.size for group in self.groups]).tolist()
        return {
            group.name: slice(end - group.size, end)
            for group, end in zip(self.groups, ends, strict=True)
        }

    def visible(self, model: str) -> list[slice]:
        """Features that `model` sees, as maximal runs: one run for each of two models."""
        runs: list[slice] = []
        for group in self.groups:
            if model in group.models and group.size:
                here = self.slices[group.name]
                if runs and runs[-1].stop == here.start:
                    runs[-1] = slice(runs[-1].start, here.stop)
                else:
                    runs.append(here)
        return runs

    def group_of_feature(self) -> list[str]:
        """Name of each feature's group (F,)."""
        return [group.name for group in self.groups for _ in range(group.size)]

    def exclusive_group(self, model: str) -> FeatureGroup | None:
        """The group that only `model` sees, if there is one."""
        return next((group for group in self.groups if group.models == (model,)), None)


def single_group(models: tuple[str, ...], features: int) -> Partition:
    """Every model sees every feature."""
    return Partition((FeatureGroup(SHARED, models, features),))


def designated_group(models: tuple[str, ...], features: int, share: float) -> Partition:
    """Two groups that every model sees; the first holds the designated shared features (DSF)."""
    first = round(features * share)
    return Partition(
        (
            FeatureGroup(DESIGNATED, models, first),
            FeatureGroup(SHARED, models, features - first),
        )
    )


def check_exclusive(models: tuple[str, ...], exclusive: Mapping[str, float]) -> None:
    """Refuses a size for a model that there is not. Raises ConfigError."""
    refuse_unknown_models("train.exclusive", exclusive, models)


def refuse_unknown_models(key: str, named: Iterable[str], models: tuple[str, ...]) -> None:
    """Raises ConfigError if setting `key` names a model that is not among `models`."""
    unknown = sorted(set(named) - set(models))
    if unknown:
        raise ConfigError(
            f"{key}: unknown model {unknown[0]!r}; the models are {', '.join(models)}"
        )


def _aligned(size: int) -> int:
    return size if size < ALIGNED_FROM else size - size % ALIGNMENT


def dedicated(models: tuple[str, ...], features: int, exclusive: Mapping[str, float]) -> Partition:
    """A DFC's partition: the first model's own features, the shared ones, the others' own.

    exclusive: a share (float) or a number of features (int) per model; 5% for one not named.
    Shares are rounded to whole features, of ALIGNED_FROM and more down to multiples of ALIGNMENT
    unless nothing would be shared. Raises ConfigError.
    """
    check_exclusive(models, exclusive)
    if SHARED in models:
        raise ConfigError(f"models.{SHARED}: a model cannot be called {SHARED!r}; rename it")
    wanted = {m: exclusive.get(m, DEFAULT_EXCLUSIVE) for m in models}
    sizes = {m: s if isinstance(s, int) else round(features * s) for m, s in wanted.items()}
    if sum(sizes.values()) < features:
        sizes = {m: n if isinstance(wanted[m], int) else _aligned(n) for m, n in sizes.items()}
    shared = features - sum(sizes.values())
    if shared < 0 or (shared == 0 and 0 in sizes.values()):
        raise ConfigError(f"train.exclusive: {exclusive} leaves a model without features")
    first, *rest = models
    return Partition(
        (
            FeatureGroup(first, (first,), sizes[first]),
            FeatureGroup(SHARED, models, shared),
            *(FeatureGroup(model, (model,), sizes[model]) for model in rest),
        )
    )
