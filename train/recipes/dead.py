"""Dead features: those that AuxK and ghost gradients are for, by partition group."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from train.dictionary.partition import Partition


@dataclass(frozen=True)
class DeadFeatures:
    """Per partition group: its dead features and how many of them AuxK uses per row."""

    groups: list[tuple[Tensor, int]]

    @property
    def features(self) -> Int[Tensor, " dead"]:
        """All of them, ascending."""
        return torch.cat([members for members, _ in self.groups])


def dead_features(
    dead_F: Bool[Tensor, " features"], partition: Partition, auxk: int
) -> DeadFeatures | None:
    """Those that are marked, None if none is; the device is waited for.

    `auxk`: how many AuxK uses of all, of which each group gets its share, at least one.
    """
    groups = []
    for group in partition.groups:
        here = partition.slices[group.name]
        members = dead_F[here].nonzero().squeeze(1) + here.start
        if len(members):
            groups.append((members, max(1, round(auxk * group.size / partition.features))))
    return DeadFeatures(groups) if groups else None


def same_features(one: DeadFeatures | None, other: DeadFeatures | None) -> bool:
    """Whether both hold the same features; the device is waited for."""
    if one is None or other is None or len(one.groups) != len(other.groups):
        return one is other
    pairs = zip(one.groups, other.groups, strict=True)
    return all(a[1] == b[1] and torch.equal(a[0], b[0]) for a, b in pairs)
