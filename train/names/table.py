"""What each name that users know stands for, and which name a dictionary has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from train.dictionary.crosscoder import Crosscoder
from train.dictionary_config import NormalizationName


@dataclass(frozen=True)
class Kind:
    """activation: its kind; normalization: the default; center: b_dec is subtracted from inputs.

    several: more than one hookpoint; dedicated: some features are not seen by every model; nested:
    prefixes of the dictionary reconstruct on their own.
    """

    activation: str
    normalization: NormalizationName
    center: bool
    several: bool = False
    dedicated: bool = False
    nested: bool = False


KINDS: dict[str, Kind] = {
    "AutoEncoder": Kind("relu", "none", True),
    "GatedAutoEncoder": Kind("gated", "none", True),
    "JumpReluAutoEncoder": Kind("jump_relu", "none", False),
    "AutoEncoderTopK": Kind("topk", "none", True),
    "BatchTopKSAE": Kind("batch_topk", "none", True),
    "MatryoshkaBatchTopKSAE": Kind("batch_topk", "none", True, nested=True),
    "CrossCoder": Kind("relu", "crosscoder", False, several=True),
    "BatchTopKCrossCoder": Kind("batch_topk", "crosscoder", False, several=True),
    "DedicatedFeatureCrossCoder": Kind("relu", "crosscoder", False, True, True),
    "DedicatedFeatureBatchTopKCrossCoder": Kind("batch_topk", "crosscoder", False, True, True),
}


def name_of(core: Crosscoder, notes: Mapping[str, Any]) -> str | None:
    """The name by which users know this dictionary; None for a combination that has none.

    `notes`: what its config.json says besides the architecture.
    """
    several = len(core.inputs) > 1 or len(core.outputs) > 1
    models = {hookpoint.model for hookpoint in core.hookpoints}
    groups = [set(group.models) for group in core.partition.groups if group.size]
    dedicated = any(not models <= group for group in groups)
    nested = not several and group_sizes(notes) is not None
    for name, kind in KINDS.items():
        found = (kind.activation, kind.several, kind.dedicated, kind.nested)
        if found == (core.activation.kind, several, dedicated, nested):
            return name
    return None


def group_sizes(notes: Mapping[str, Any]) -> list[int] | None:
    """Sizes of the nested parts of a Matryoshka dictionary; None for any other."""
    if "group_sizes" in notes:
        return [int(size) for size in notes["group_sizes"]]
    return [] if notes.get("recipe") == "matryoshka" else None
