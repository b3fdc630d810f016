"""Activation functions: which pre-activations become codes, in training and at inference.

An activation is a plain value; what it learns (thresholds, gates) are parameters and buffers of the
dictionary, which it names. `training` gives codes that are differentiable where the method is;
`inference` never lets one row's codes depend on another's. `whole` is the global batch that rows in
training are some of; None: they are all of it.
"""

from __future__ import annotations

from typing import Any

from train.dictionary.gates import Gated, JumpReLU, ReLU
from train.dictionary.top_k import BatchTopK, TopK

Activation = ReLU | TopK | BatchTopK | JumpReLU | Gated
KINDS: dict[str, type[Activation]] = {
    kind.kind: kind for kind in (ReLU, TopK, BatchTopK, JumpReLU, Gated)
}


def describe_activation(activation: Activation) -> dict[str, Any]:
    """An activation as JSON values."""
    return {"kind": activation.kind, **vars(activation)}


def build_activation(description: dict[str, Any]) -> Activation:
    """The activation of a description. Raises KeyError, TypeError or ValueError."""
    fields = dict(description)
    kind = fields.pop("kind")
    if isinstance(fields.get("group_shares"), list):
        fields["group_shares"] = tuple(fields["group_shares"])
    return KINDS[kind](**fields)
