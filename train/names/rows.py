"""Users' tensors as activations per hookpoint, and back.

One hookpoint: (..., d). Several of one width: (..., L, d). Of different widths, or by name: a
mapping of hookpoint names to (..., d).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from pipeline.errors import DictionaryError
from train.dictionary.crosscoder import Activations, Crosscoder, HookpointShape

Rows = Tensor | Mapping[str, Tensor]


def flatten(core: Crosscoder, x: Rows) -> tuple[Activations, tuple[int, ...]]:
    """Activations (B, d) of the reading hookpoints, and the dimensions that became B.

    Raises DictionaryError for a shape or name that does not fit.
    """
    shapes = [core.hookpoints[n] for n in core.inputs]
    if isinstance(x, Tensor):
        x = _by_name(shapes, x)
    lead: tuple[int, ...] | None = None
    rows = {}
    for shape in shapes:
        if shape.name not in x:
            raise DictionaryError(
                f"{shape.name}: no activations given; given are {', '.join(x) or 'none'}"
            )
        part = x[shape.name]
        lead = part.shape[:-1] if lead is None else lead
        if part.dim() < 1 or part.shape != (*lead, shape.width):
            wanted = ", ".join(map(str, (*lead, shape.width)))
            raise DictionaryError(
                f"{shape.name}: activations of shape {tuple(part.shape)}, expected ({wanted})"
            )
        rows[shape.name] = part.reshape(math.prod(lead), shape.width)
    return rows, tuple(lead or ())


def _by_name(shapes: list[HookpointShape], x: Tensor) -> Mapping[str, Tensor]:
    if len(shapes) == 1:
        return {shapes[0].name: x}
    widths = sorted({shape.width for shape in shapes})
    names = ", ".join(shape.name for shape in shapes)
    if len(widths) > 1:
        raise DictionaryError(
            f"one tensor of activations for hookpoints of widths {widths}; give a dict of {names}"
        )
    if x.dim() < 2 or x.shape[-2:] != (len(shapes), widths[0]):
        raise DictionaryError(
            f"activations of shape {tuple(x.shape)}, expected (..., {len(shapes)}, {widths[0]}) "
            f"for hookpoints {names}"
        )
    return {shape.name: x[..., place, :] for place, shape in enumerate(shapes)}


def unflatten(
    core: Crosscoder, rows: Activations, lead: tuple[int, ...], by_name: bool
) -> Tensor | Activations:
    """Reconstructions in the form in which a user gave the inputs; see the module's text."""
    parts = {name: row.reshape(*lead, row.shape[-1]) for name, row in rows.items()}
    values = list(parts.values())
    if by_name or len({value.shape for value in values}) > 1:
        return parts
    return values[0] if len(values) == 1 else torch.stack(values, dim=-2)
