"""One pass of a few tokens that says what flows through every module, and in which order.

Costs a forward pass of 6 tokens. Works on a model without weights, under FakeTensorMode.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

PROBE = (2, 3)


@dataclass(frozen=True)
class Traffic:
    """What one module was given and gave: the first tensor of each, if there was one.

    entered, left: places in the order of all events of the pass; runs: how often it ran.
    """

    entered: int
    left: int
    runs: int
    input: Tensor | None
    output: Tensor | None

    def at(self, site: str) -> Tensor | None:
        """The tensor at `in` or `out`."""
        return self.input if site == "in" else self.output

    def order(self, site: str) -> int:
        """When the tensor at `in` or `out` was there."""
        return self.entered if site == "in" else self.left


@dataclass(frozen=True)
class Observed:
    """A model and what the probe pass saw; a module that did not run has no traffic."""

    modules: dict[str, Module]
    traffic: dict[str, Traffic]
    config: Any

    def width(self, path: str, site: str) -> int | None:
        """Channels at a place with one vector per token; None for anything else."""
        value = self.traffic[path].at(site) if path in self.traffic else None
        per_token = value is not None and value.ndim == 3 and value.shape[:2] == PROBE
        return int(value.shape[2]) if value is not None and per_token else None


def observe(module: Module, device: torch.device) -> Observed:
    """Runs PROBE tokens through the whole model, which may raise anything that a model raises.

    The model's config is its text config where it reads images as well.
    """
    entered: dict[str, int] = {}
    traffic: dict[str, Traffic] = {}
    clock = count()
    modules = {path: inner for path, inner in module.named_modules() if path}
    handles = []
    for path, inner in modules.items():
        enter = partial(_enter, entered, clock, path)
        leave = partial(_leave, entered, traffic, clock, path)
        handles.append(inner.register_forward_pre_hook(enter))
        handles.append(inner.register_forward_hook(leave, with_kwargs=True))
    ids = torch.zeros(PROBE, dtype=torch.long, device=device)
    try:
        with torch.no_grad():
            module(input_ids=ids, attention_mask=torch.ones_like(ids))
    finally:
        for handle in handles:
            handle.remove()
    return Observed(modules, traffic, text_config(module))


def text_config(module: Module) -> Any:
    """The config of the language model, where a model has one for images as well."""
    config: Any = module.config
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def first_input(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor | None:
    """The tensor that a module works on: its first one, `hidden_states` before other keywords."""
    given = [*args, kwargs.get("hidden_states"), *kwargs.values()]
    return next((value for value in given if isinstance(value, Tensor)), None)


def first_output(value: Any) -> Tensor | None:
    """The tensor that a module gives: the first entry of a tuple or of a ModelOutput."""
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if isinstance(value, tuple | list):
        value = value[0] if value else None
    return value if isinstance(value, Tensor) else None


def _enter(entered: dict[str, int], clock: count[int], path: str, *_: Any) -> None:
    entered.setdefault(path, next(clock))


def _leave(
    entered: dict[str, int],
    traffic: dict[str, Traffic],
    clock: count[int],
    path: str,
    _: Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    output: Any,
) -> None:
    now = next(clock)
    before = traffic.get(path)
    if before is None:
        given, gave = first_input(args, kwargs), first_output(output)
        traffic[path] = Traffic(entered[path], now, 1, given, gave)
    else:
        traffic[path] = Traffic(
            before.entered, before.left, before.runs + 1, before.input, before.output
        )
