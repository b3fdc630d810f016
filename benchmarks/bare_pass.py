"""The least that reading a model's hookpoints can cost: plain forward hooks and an early stop.

What `harvest run` is measured against, and an oracle for its bits. Not used by the product.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from harvest.models.hookpoints import find_places
from harvest.models.load import load_model
from harvest.models.probe import first_input, first_output, observe
from pipeline.specs import ModelSpec

Pass = Callable[[Tensor, Tensor], list[Tensor]]


class _Stop(Exception):
    """Ends a pass behind the last tensor."""


def bare_pass(name: str, spec: ModelSpec) -> Pass:
    """Loads the model; gives (input_ids, attention_mask) -> the tensors read, in forward order."""
    module = load_model(name, spec)
    device = next(module.parameters()).device
    observed = observe(module, device)
    reads = {(place.path, place.site) for place in find_places(name, spec, observed)}
    ordered = sorted(reads, key=lambda read: observed.traffic[read[0]].order(read[1]))
    found: list[Tensor] = []

    def keep(value: Tensor) -> None:
        found.append(value)
        if len(found) == len(ordered):
            raise _Stop

    for path, site in ordered:
        inner = module.get_submodule(path)
        if site == "in":
            inner.register_forward_pre_hook(
                lambda _, args, kwargs: keep(first_input(args, kwargs)), with_kwargs=True
            )
        else:
            inner.register_forward_hook(lambda _, __, output: keep(first_output(output)))

    def run(input_ids: Tensor, attention_mask: Tensor) -> list[Tensor]:
        found.clear()
        try:
            with torch.no_grad():
                module(input_ids=input_ids.to(device), attention_mask=attention_mask.to(device))
        except _Stop:
            pass
        return list(found)

    return run
