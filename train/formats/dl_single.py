"""Which dictionary_learning class a single-model dictionary is written as, and its state dict."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from train.formats.dl_plain import CENTER, write_plain
from train.formats.dl_topk import needs_k, write_topk
from train.formats.weights import Weights

# The first is taken where the dictionary was not imported from one of the others.
CLASSES = {
    "relu": ("AutoEncoder", "AutoEncoderNew"),
    "gated": ("GatedAutoEncoder",),
    "jump_relu": ("JumpReluAutoEncoder",),
    "topk": ("AutoEncoderTopK",),
    "batch_topk": ("BatchTopKSAE", "MatryoshkaBatchTopKSAE"),
}
UNCENTERED = "AutoEncoderNew"


def single_state(
    weights: Weights, k: int, source: dict[str, Any]
) -> tuple[str, dict[str, Tensor], Weights, dict[str, Any]]:
    """Class, state dict, the weights as they were changed for it, and settings for its config."""
    kind, groups = choose_class(weights, source), source.get("group_sizes")
    settings: dict[str, Any] = {}
    if kind == "JumpReluAutoEncoder":
        settings[CENTER] = weights.center
    else:
        weights = weights.with_center(kind != UNCENTERED)
    if weights.activation.kind not in ("topk", "batch_topk"):
        return kind, write_plain(kind, weights), weights, settings
    needs_k(k, kind)
    weights = weights.with_unit_score()
    settings["k"] = k
    if groups is not None:
        settings["group_sizes"] = groups
    return kind, write_topk(kind, weights, k, groups), weights, settings


def choose_class(weights: Weights, source: dict[str, Any]) -> str:
    """The class it was imported from where that still fits, else by activation and centering."""
    classes = CLASSES[weights.activation.kind]
    if source.get("library") == "dictionary_learning" and source.get("kind") in classes:
        return str(source["kind"])
    if classes[0] == "AutoEncoder" and not weights.center:
        return UNCENTERED
    return classes[1] if source.get("group_sizes") and len(classes) > 1 else classes[0]
