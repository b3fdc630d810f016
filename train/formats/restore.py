"""The way back to the bit: what an import kept goes into the export where it still holds."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from train.dictionary.activation import TopK
from train.dictionary.crosscoder import Crosscoder
from train.formats.dl_crosscoder import ID
from train.formats.kept import DTYPES, unpack
from train.formats.normaliser import KEYS, read_normaliser

LATER = {"AutoEncoderTopK": ("k", "threshold")}  # keys that older files of a class lack


def source_k(source: dict[str, Any], dictionary: Crosscoder) -> int:
    """k of the dictionary or of what it was imported from or trained with; 0 if none says."""
    if isinstance(dictionary.activation, TopK):
        return dictionary.activation.k
    k = source.get("k")
    return int(k) if isinstance(k, int | float) else 0


def is_own_normaliser(dictionary: Crosscoder, source: dict[str, Any], layers: int) -> bool:
    """Whether the dictionary's scale and means are still those of the kept normaliser."""
    kept = unpack(source.get("kept", {}))
    if "activation_mean" not in kept:
        return False
    read = read_normaliser(kept, layers)
    if read is None:
        return not dictionary.means and bool((dictionary.scale == 1).all())
    scale, means, _ = read
    return dictionary.means and all(
        torch.equal(there.to(here), here)
        for there, here in [
            (scale, dictionary.scale),
            *((mean, dictionary.get_buffer(f"mean_{n}")) for n, mean in enumerate(means)),
        ]
    )


def restored(
    state: dict[str, Tensor],
    source: dict[str, Any],
    library: str,
    kind: str,
    own_normaliser: bool = False,
) -> dict[str, Tensor]:
    """`state` with the original's keys, dtypes and kept tensors, if it is of the same class."""
    if source.get("library") != library or source.get("kind") != kind:
        return state
    kept, dtypes = unpack(source.get("kept", {})), source.get("dtypes", {})
    state = dict(state)
    if "threshold" in kept and "threshold" in state:
        unused = kind in LATER
        if unused or torch.equal(
            kept["threshold"].clamp(min=0).to(state["threshold"]), state["threshold"]
        ):
            state["threshold"] = kept["threshold"]
    if own_normaliser:
        state |= {key: value for key, value in kept.items() if key in KEYS}
    for key in _absent(state, source, kind, own_normaliser):
        state.pop(key, None)
    return {key: _as_before(value, dtypes.get(key)) for key, value in state.items()}


def _absent(
    state: dict[str, Tensor], source: dict[str, Any], kind: str, own_normaliser: bool
) -> list[str]:
    """Keys that say nothing new and that the original did not have."""
    optional = list(LATER.get(kind, ()))
    if ID in state and int(state[ID]) == 1:
        optional.append(ID)
    mean = state.get("activation_mean")
    if own_normaliser or (mean is not None and bool(mean.isnan().all())):
        optional += KEYS
    return [key for key in optional if key not in source.get("dtypes", {})]


def _as_before(value: Tensor, dtype: str | None) -> Tensor:
    """In the original's dtype, unless that would lose something."""
    if dtype is None or dtype not in DTYPES or value.dtype == DTYPES[dtype]:
        return value
    narrow = value.to(DTYPES[dtype])
    return narrow if torch.equal(narrow.to(value.dtype), value) else value
