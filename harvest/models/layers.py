"""Where a model's layers, their attention and their MLP are: found by structure and by the order
in which a probe pass ran them, not by a table of architectures.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

from torch.nn import Module, ModuleList

from harvest.models.probe import Observed

ATTENTION = re.compile(r"attn|attention", re.IGNORECASE)
CROSS = re.compile(r"cross|encoder_att", re.IGNORECASE)
MLP = re.compile(r"mlp|ffn|feed_?forward|moe", re.IGNORECASE)
HEAD_COUNTS = ("num_v_heads", "num_heads", "num_attention_heads", "n_head", "n_heads")


class NotFound(Exception):
    """A kind of hookpoint that this model does not have, or has in more than one place."""


def layer_path(observed: Observed, layer: int) -> str:
    """Path of a layer of the language model; -1 is the last. Raises NotFound."""
    stack = layer_stack(observed)
    length = len(observed.modules[stack])  # type: ignore[arg-type]
    if not -length <= layer < length:
        raise NotFound(f"the layers are {stack}.0 to {stack}.{length - 1}")
    return f"{stack}.{layer % length}"


def layer_stack(observed: Observed) -> str:
    """Path of the list of layers: as long as the config says, run, with attention in it."""
    depth = getattr(observed.config, "num_hidden_layers", None)
    found = [
        path
        for path, module in observed.modules.items()
        if isinstance(module, ModuleList) and len(module) == depth and _is_stack(observed, path)
    ]
    outer = [p for p in found if not any(p.startswith(f"{other}.") for other in found)]
    if len(outer) != 1:
        raise NotFound("its stack of layers cannot be told")
    return outer[0]


def attention(observed: Observed, layer: int) -> str:
    """Path of a layer's self-attention, its output projection included. Raises NotFound."""
    parent = layer_path(observed, layer)
    found = [
        path
        for path, module in _children(observed, parent)
        if _named(ATTENTION, path, module) and _linears(observed, path)
    ]
    if len(found) != 1:
        raise NotFound(f"{parent} has {'no' if not found else 'more than one'} attention module")
    return found[0]


def projection(observed: Observed, layer: int) -> str:
    """Path of the linear map that takes all heads back to the residual stream."""
    return _last_linear(observed, attention(observed, layer), layer)


def head_count(observed: Observed, layer: int) -> int:
    """Attention heads in the input of the output projection. Raises NotFound."""
    path = attention(observed, layer)
    inside = [m for p, m in observed.modules.items() if p == path or p.startswith(f"{path}.")]
    said = [getattr(module, name, None) for name in HEAD_COUNTS for module in inside]
    said.append(getattr(observed.config, "num_attention_heads", None))
    heads = next((number for number in said if isinstance(number, int)), 0)
    width = observed.width(projection(observed, layer), "in")
    if not heads or width is None or width % heads:
        raise NotFound(f"{path} has heads whose number cannot be told")
    return heads


def attention_out(observed: Observed, layer: int) -> str:
    """Path of the module whose output is what attention gives, no residual or norm in it."""
    return _without_residual(observed, attention(observed, layer), layer)


def mlp_in(observed: Observed, layer: int) -> str:
    """Path of the module whose input is the MLP's (or the mixture of experts')."""
    return _mlp(observed, layer)[0]


def mlp_out(observed: Observed, layer: int) -> str:
    """Path of the module whose output is the MLP's, no residual or norm in it."""
    return _without_residual(observed, _mlp(observed, layer)[-1], layer)


def _mlp(observed: Observed, layer: int) -> list[str]:
    """One module, or two where a layer holds the halves of its MLP itself (OPT, BERT)."""
    parent = layer_path(observed, layer)
    found = {
        path: module
        for path, module in _children(observed, parent)
        if not _named(ATTENTION, path, module) and any(p.ndim > 1 for p in module.parameters())
    }
    named = [path for path, module in found.items() if _named(MLP, path, module)]
    paths = named if len(named) == 1 else list(found)
    paths.sort(key=lambda path: observed.traffic[path].left)
    if len(paths) == 1 or (len(paths) == 2 and _follows(observed, *paths)):
        return paths
    raise NotFound(f"{parent} has {'no' if not paths else 'more than one'} MLP")


def _follows(observed: Observed, first: str, second: str) -> bool:
    """Whether the second module takes what the first gives, wider than the residual stream."""
    inner = observed.width(first, "out")
    return inner == observed.width(second, "in") and inner != observed.width(first, "in")


def _without_residual(observed: Observed, path: str, layer: int) -> str:
    """The module itself, or its last linear map where it adds the residual stream on its own."""
    inside = [p for p in observed.traffic if p == path or p.startswith(f"{path}.")]
    leaves = [p for p in inside if not list(observed.modules[p].children())]
    last = max(leaves, key=lambda leaf: observed.traffic[leaf].left)
    normed = "Norm" in type(observed.modules[last]).__name__
    adds = "residual" in inspect.signature(observed.modules[path].forward).parameters
    return _last_linear(observed, path, layer) if normed or adds else path


def _last_linear(observed: Observed, path: str, layer: int) -> str:
    width = observed.width(layer_path(observed, layer), "out")
    found = [p for p in _linears(observed, path) if observed.width(p, "out") == width]
    if not found:
        raise NotFound(f"{path} has no projection back to the layer's width")
    return max(found, key=lambda linear: observed.traffic[linear].left)


def _is_stack(observed: Observed, path: str) -> bool:
    layers = list(_children(observed, path))
    return len(layers) == len(list(observed.modules[path].children())) and any(
        _named(ATTENTION, below, module)
        for layer, _ in layers
        for below, module in _children(observed, layer)
    )


def _children(observed: Observed, path: str) -> Iterator[tuple[str, Module]]:
    """Modules right below a path that the pass ran, attention to another text left out."""
    for name, module in observed.modules[path].named_children():
        if f"{path}.{name}" in observed.traffic and not CROSS.search(name):
            yield f"{path}.{name}", module


def _linears(observed: Observed, path: str) -> list[str]:
    """Linear maps below a path that ran. An adapter's own are a part of the one that it adapts."""
    if _is_linear(observed.modules[path]):
        return [path]
    below = [_linears(observed, child) for child, _ in _children(observed, path)]
    return [linear for linears in below for linear in linears]


def _is_linear(module: Module) -> bool:
    """By class name, so that quantized and adapted ones, and GPT-2's Conv1D, are known."""
    return bool(re.search(r"Linear|Conv1D", type(module).__name__))


def _named(pattern: re.Pattern[str], path: str, module: Module) -> bool:
    kind = type(module).__name__
    own = path.rsplit(".", 1)[-1]
    return "Norm" not in kind and bool(pattern.search(own) or pattern.search(kind))
