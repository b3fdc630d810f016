"""Edits the slow way: torch hooks on a plain transformers model, written without our own code."""

from __future__ import annotations

from collections.abc import Callable

import torch


def hook(model, path: str, site: str, edit: Callable, channels: slice = slice(None)):
    """Puts an edit on the first tensor that a module takes or gives; returns what removes it."""

    def replaced(value):
        new = value.clone()
        new[..., channels] = edit(value[..., channels].clone())
        return new

    def before(_, args, kwargs):
        if args:
            return (replaced(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": replaced(kwargs["hidden_states"])}

    def after(_, __, output):
        if isinstance(output, tuple):
            return (replaced(output[0]), *output[1:])
        return replaced(output)

    module = model.get_submodule(path)
    if site == "in":
        return module.register_forward_pre_hook(before, with_kwargs=True)
    return module.register_forward_hook(after)


def logits(model, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=mask, use_cache=False).logits


def continuation(model, prompt: list[int], new: int, choose: Callable) -> list[int]:
    """Tokens behind one prompt, all of it read again for every token."""
    tokens = list(prompt)
    for step in range(new):
        ids = torch.tensor([tokens])
        tokens.append(choose(logits(model, ids, torch.ones_like(ids))[0, -1], step))
    return tokens[len(prompt) :]
