"""Crosscoders written as the classes of the dictionary_learning forks (see dl_crosscoder)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pipeline.errors import DictionaryError
from train.dictionary.activation import BatchTopK
from train.dictionary.crosscoder import Crosscoder
from train.formats.dl_crosscoder import DEDICATED, ID, LIBRARY, NORMALIZATIONS, ours_of_theirs
from train.formats.dl_topk import needs_k
from train.formats.normaliser import no_normaliser, write_normaliser


def write_crosscoder(dictionary: Crosscoder, k: int) -> tuple[str, dict[str, Tensor], Any]:
    """Class, state dict and `_partition_config` (None without one). Raises DictionaryError."""
    refuse_inexpressible(dictionary)
    exclusive = partition_sizes(dictionary)
    features, layers = dictionary.partition.features, len(dictionary.hookpoints)
    order = torch.arange(features)
    kind = "CrossCoder" if dictionary.activation.kind == "relu" else "BatchTopKCrossCoder"
    config = None
    if exclusive is not None:
        a, b = exclusive
        order = ours_of_theirs(a, b, features).argsort()
        kind = DEDICATED + kind
        config = {
            "dict_size": features,
            "model_a_exclusive_pct": share_of(a, features),
            "model_b_exclusive_pct": share_of(b, features),
        }
    width = dictionary.hookpoints[0].width
    state = {
        "encoder.weight": torch.stack(
            [full_width(dictionary, "W_enc", n)[order].T for n in range(layers)]
        ),
        "encoder.bias": dictionary.b_enc.detach()[order],
        "decoder.weight": torch.stack(
            [full_width(dictionary, "W_dec", n)[order] for n in range(layers)]
        ),
        "decoder.bias": torch.stack([dictionary.b_dec[str(n)].detach() for n in range(layers)]),
        ID: torch.tensor({name: n for n, name in NORMALIZATIONS.items()}[dictionary.normalization]),
        **_normaliser(dictionary, (layers, width)),
    }
    if "BatchTopK" in kind:
        needs_k(k, kind)
        state["k"] = torch.tensor(k, dtype=torch.int32)
        state["threshold"] = dictionary.threshold.detach()
    return kind, state, config


def full_width(dictionary: Crosscoder, part: str, number: int) -> Tensor:
    """W_enc or W_dec of a hookpoint over all features (F, D), 0 where it does not see them."""
    own = getattr(dictionary, part)[str(number)].detach()
    full = own.new_zeros(dictionary.partition.features, own.shape[1])
    full[dictionary.visibility(number).features_V] = own
    return full


def _normaliser(dictionary: Crosscoder, shape: tuple[int, int]) -> dict[str, Tensor]:
    if not dictionary.means and bool((dictionary.scale == 1).all()):
        return no_normaliser(shape)
    means = [
        dictionary.get_buffer(f"mean_{n}") if dictionary.means else torch.zeros(shape[1])
        for n in range(shape[0])
    ]
    return write_normaliser(dictionary.scale, torch.stack(means))


def share_of(count: int, features: int) -> float:
    """A share that truncates to `count` again: int(features * share) == count."""
    share = count / features
    while int(features * share) < count:
        share = math.nextafter(share, 1.0)
    return share


def refuse_inexpressible(dictionary: Crosscoder) -> None:
    """Raises DictionaryError for what these classes cannot hold."""
    kind, hookpoints = dictionary.activation.kind, dictionary.hookpoints
    reason = None
    if kind not in ("relu", "batch_topk"):
        reason = f"its activation is {kind}, and crosscoders there are relu or batch_topk"
    elif isinstance(dictionary.activation, BatchTopK) and dictionary.activation.group_shares:
        reason = "it has a threshold per feature group, and there one for all"
    elif dictionary.normalization not in NORMALIZATIONS.values():
        reason = f"its code normalization {dictionary.normalization} has no number there"
    elif dictionary.center:
        reason = "it subtracts b_dec from its inputs, which no crosscoder there does"
    elif any(not (h.reads and h.writes) for h in hookpoints):
        reason = "a hookpoint is only read or only written, and there every layer is both"
    elif len({h.width for h in hookpoints}) > 1:
        widths = ", ".join(f"{h.name} {h.width}" for h in hookpoints)
        reason = f"its widths differ ({widths}), and there all layers are equally wide"
    elif kind == "batch_topk" and bool((dictionary.norm_scale != 1).any()):
        reason = "its activation scale was folded into the weights; export the unfolded dictionary"
    if reason:
        raise DictionaryError(f"export to {LIBRARY}: {reason}")


def partition_sizes(dictionary: Crosscoder) -> tuple[int, int] | None:
    """Sizes of A alone and B alone; None if all see everything. Raises DictionaryError."""
    hookpoints, groups = dictionary.hookpoints, [g for g in dictionary.partition.groups if g.size]
    models = tuple(dict.fromkeys(h.model for h in hookpoints))
    if all(set(group.models) == set(models) for group in groups):
        return None
    own = {group.models[0]: group.size for group in groups if len(group.models) == 1}
    if (
        len(models) != 2
        or len(hookpoints) != 2
        or len(groups) != len(own) + any(len(group.models) == 2 for group in groups)
    ):
        raise DictionaryError(
            f"export to {LIBRARY}: a dedicated feature crosscoder there has two models with one "
            f"hookpoint each, this one {len(models)} models, {len(hookpoints)} hookpoints and "
            f"groups {', '.join(group.name for group in groups)}"
        )
    return own.get(models[0], 0), own.get(models[1], 0)
