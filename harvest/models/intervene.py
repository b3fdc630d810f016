"""Runs a model to its logits with the activations at its hookpoints replaced on the way.

An edit gets what flows through a hookpoint (batch, seq, width) and returns what shall flow on in
its place; the model behind it reads nothing else. Plain torch hooks, put on for the passes of one
call and taken off whatever happens: a pass costs what the bare model costs, and the edits. With
edits that return what they got, the logits are those of the model alone, bit for bit.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import Module

from harvest.models.hooked import HookedModel
from harvest.models.hookpoints import Place
from harvest.models.probe import first_input, first_output
from pipeline.errors import ModelError

Edit = Callable[[Tensor], Tensor]
"""(batch, seq, width) of one hookpoint to what replaces it: the same shape, not written over."""

Named = tuple[str, Place, Edit]


def logits(
    model: HookedModel,
    input_ids: Int[Tensor, "batch seq"],
    attention_mask: Int[Tensor, "batch seq"],
    edits: Mapping[str, Edit] | None = None,
) -> Float[Tensor, "batch seq vocabulary"]:
    """Scores of every next token at every position, in the model's dtype and on its last device.

    edits: by hookpoint name, as in `model.hookpoints`; those left out keep what they have. Pad on
    the right, as in `HookedModel.activations`. Raises ModelError for a model without an output
    head, a hookpoint that it does not have, or an edit that changes the shape.
    """
    with edited(model, edits or {}):
        scores: Tensor = run(model, input_ids, attention_mask).logits
    return scores


@contextmanager
def edited(model: HookedModel, edits: Mapping[str, Edit]) -> Iterator[None]:
    """Within the block every pass of the model is an edited one. Raises ModelError.

    Edits of several heads of one layer, or of a head and all of them, act in the order of
    `model.hookpoints`. One thread at a time may use a model, as everywhere.
    """
    _refuse_unknown(model, edits)
    by_read: dict[tuple[str, str], list[Named]] = {}
    for hookpoint, place in zip(model.hookpoints, model.places, strict=True):
        if hookpoint.name in edits:
            named = (hookpoint.name, place, edits[hookpoint.name])
            by_read.setdefault((place.path, place.site), []).append(named)
    with ExitStack() as hooks:
        for (path, site), here in by_read.items():
            inner = model.module.get_submodule(path)
            if site == "in":
                put = partial(_edit_input, here)
                handle = inner.register_forward_pre_hook(put, with_kwargs=True)
            else:
                handle = inner.register_forward_hook(partial(_edit_output, here))
            hooks.callback(handle.remove)
        yield


def run(model: HookedModel, input_ids: Tensor, attention_mask: Tensor, **further: Any) -> Any:
    """The model's own output, with logits, without gradients. Raises ModelError if it has none."""
    if model.module.get_output_embeddings() is None:  # type: ignore[operator]
        raise _no_head(model)
    device = model.device
    with torch.no_grad():
        output = model.module(
            input_ids=input_ids.to(device), attention_mask=attention_mask.to(device), **further
        )
    if not isinstance(getattr(output, "logits", None), Tensor):
        raise _no_head(model)
    return output


def accepts(model: HookedModel, argument: str) -> bool:
    """Whether a pass of the model takes this argument."""
    return argument in inspect.signature(model.module.forward).parameters


def _edit_input(
    edits: list[Named], module: Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a module with the tensor that it works on edited, wherever it stands."""
    given = first_input(args, kwargs)
    assert given is not None
    value = _edited(edits, given)
    for number, argument in enumerate(args):
        if argument is given:
            return (*args[:number], value, *args[number + 1 :]), kwargs
    key = next(key for key, argument in kwargs.items() if argument is given)
    return args, {**kwargs, key: value}


def _edit_output(edits: list[Named], module: Module, args: Any, output: Any) -> Any:
    """The output of a module with its first tensor edited, in the form that the module gave."""
    given = first_output(output)
    assert given is not None
    value = _edited(edits, given)
    if isinstance(output, Tensor):
        return value
    if isinstance(output, Mapping):  # a ModelOutput, which knows its fields by item as well
        output[next(iter(output))] = value  # type: ignore[index]
        return output
    return type(output)([value, *output[1:]])


def _edited(edits: list[Named], value: Float[Tensor, "batch seq channels"]) -> Tensor:
    """The tensor behind all edits of its places, in its own dtype and on its own device."""
    for name, place, edit in edits:
        whole = place.head is None
        given = value if whole else value[..., place.channels]
        version = value._version
        found = edit(given)
        if not isinstance(found, Tensor) or found.shape != given.shape:
            got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ModelError(
                f"{name}: its edit gives {got}, not {tuple(given.shape)}; return a tensor of the "
                "shape that was given (batch, seq, width)"
            )
        assert value._version == version, f"the edit of {name} wrote over what it was given"
        if found is given:
            continue
        found = found.to(device=value.device, dtype=value.dtype)
        if whole:
            value = found
        else:
            value = value.clone()
            value[..., place.channels] = found
    return value


def _refuse_unknown(model: HookedModel, edits: Mapping[str, Edit]) -> None:
    known = [hookpoint.name for hookpoint in model.hookpoints]
    for name in edits:
        if name not in known:
            raise ModelError(
                f"models.{model.name}: no hookpoint {name!r} to edit; it has {', '.join(known)}"
            )


def _no_head(model: HookedModel) -> ModelError:
    return ModelError(
        f"models.{model.name}.path: {model.spec.path}: a {type(model.module).__name__} predicts no "
        "next token (no output head); name a causal language model"
    )
