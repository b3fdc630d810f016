"""A foreign dictionary as plain tensors, and the Crosscoder made of it.

F features, D width, V features that a hookpoint sees.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pipeline.errors import DictionaryError
from train.dictionary.activation import Activation
from train.dictionary.crosscoder import Crosscoder, HookpointShape
from train.dictionary.partition import SHARED, FeatureGroup, Partition, single_group
from train.dictionary_config import NormalizationName
from train.formats.files import Found


@dataclass
class Draft:
    """What every format is read into.

    W_enc, W_dec: (F, D) per hookpoint, over all features, in this project's order (first model's
    own, shared, second model's own); exclusive: sizes of the two models' own groups; parameters:
    threshold, r_mag, mag_bias as the activation wants them; scale (H,) and mean (D,) per hookpoint
    of inputs; kept: tensors that only a way back needs; details: other such values.
    transcoder: one hookpoint is read, a second one written.
    """

    kind: str
    W_enc: list[Tensor]
    W_dec: list[Tensor]
    b_enc: Tensor
    b_dec: list[Tensor]
    activation: Activation
    normalization: NormalizationName = "none"
    center: bool = False
    exclusive: tuple[int, int] | None = None
    parameters: dict[str, Tensor] = field(default_factory=dict)
    scale: Tensor | None = None
    mean: list[Tensor] | None = None
    transcoder: bool = False
    notes: list[str] = field(default_factory=list)
    kept: dict[str, Tensor] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)


def sizes(found: Found, kind: str, shapes: dict[str, str]) -> dict[str, int]:
    """What each letter of `shapes` stands for: {"encoder.weight": "Fd"} -> {"F": .., "d": ..}.

    Raises DictionaryError for a tensor whose shape does not fit the others.
    """
    known: dict[str, int] = {}
    for key, letters in shapes.items():
        shape = tuple(found.tensors[key].shape)
        expected = tuple(known.get(letter, "any") for letter in letters)
        if len(shape) != len(letters) or any(
            want not in ("any", have) for want, have in zip(expected, shape, strict=True)
        ):
            raise DictionaryError(
                f"{found.file}: {key} has shape {shape}, where a {kind} has "
                f"({', '.join(letters)}) = ({', '.join(map(str, expected))}); "
                "name an undamaged file"
            )
        known.update(zip(letters, shape, strict=True))
    return known


def clamped(draft: Draft, raw: Tensor) -> Tensor:
    """A foreign threshold, where below 0 (never set, or of no effect behind a ReLU) as 0."""
    below = int((raw < 0).sum())
    if below:
        draft.kept["threshold"] = raw
        which = "threshold" if raw.dim() == 0 else f"{below:,} of {raw.numel():,} thresholds"
        draft.notes.append(f"{which} below 0: taken as 0, every positive code is kept")
    return raw.clamp(min=0)


def bind(draft: Draft, models: tuple[str, ...] | None, names: tuple[str, ...] | None) -> Crosscoder:
    """The Crosscoder of a draft. `models` and `names` are per hookpoint. Raises DictionaryError."""
    shapes = _hookpoints(draft, models, names)
    weights = [draft.b_enc, *draft.W_enc, *draft.W_dec]
    dtype = torch.float64 if any(w.dtype == torch.float64 for w in weights) else torch.float32
    dictionary = Crosscoder(
        shapes,
        _partition(draft, shapes),
        draft.normalization,
        dtype,
        activation=draft.activation,
        center=draft.center,
        means=draft.mean is not None,
    )
    state = {"b_enc": draft.b_enc, **draft.parameters}
    for part, tensors, numbers in (
        ("W_enc", draft.W_enc, dictionary.inputs),
        ("W_dec", draft.W_dec, dictionary.outputs),
        ("b_dec", draft.b_dec, dictionary.outputs),
    ):
        for number, tensor in zip(numbers, tensors, strict=True):
            seen = slice(None) if part == "b_dec" else dictionary.visibility(number).features_V
            state[f"{part}.{number}"] = tensor[seen]
    if draft.scale is not None:
        state["scale"] = draft.scale
    for number, mean in enumerate(draft.mean or []):
        state[f"mean_{number}"] = mean
    full = {name: state.get(name, value) for name, value in dictionary.state_dict().items()}
    dictionary.load_state_dict({name: value.to(dtype) for name, value in full.items()})
    return dictionary.eval()


def _hookpoints(
    draft: Draft, models: tuple[str, ...] | None, names: tuple[str, ...] | None
) -> tuple[HookpointShape, ...]:
    widths = [
        W.shape[1] for W in ([*draft.W_enc, *draft.W_dec] if draft.transcoder else draft.W_dec)
    ]
    count = len(widths)
    if models is None:
        models = {1: ("model",), 2: ("a", "b")}.get(count) or tuple(
            f"layer_{n}" for n in range(count)
        )
        models = ("model", "model") if draft.transcoder else models
    if len(models) == 1:
        models = models * count if draft.exclusive is None else models
    if names is None and len(set(models)) == count:
        names = models
    elif names is None:
        names = (
            ("in", "out") if draft.transcoder else tuple(f"{m}.{n}" for n, m in enumerate(models))
        )
    for what, given in (("models", models), ("hookpoints", names)):
        if len(given) != count:
            raise DictionaryError(
                f"{what}: {len(given)} named ({', '.join(given)}), the file has {count} hookpoints"
            )
    if len(set(names)) != count:
        raise DictionaryError(f"hookpoints: {', '.join(names)} names one twice; name each its own")
    if draft.exclusive is not None and (len(set(models)) != 2 or SHARED in models):
        raise DictionaryError(
            f"models: {', '.join(models)}; a dedicated feature crosscoder needs two different "
            f"names, and neither {SHARED!r}"
        )
    ends = [(True, False), (False, True)] if draft.transcoder else [(True, True)] * count
    return tuple(
        HookpointShape(name, model, width, reads, writes)
        for name, model, width, (reads, writes) in zip(names, models, widths, ends, strict=True)
    )


def _partition(draft: Draft, shapes: Iterable[HookpointShape]) -> Partition:
    models = tuple(dict.fromkeys(shape.model for shape in shapes))
    features = len(draft.b_enc)
    if draft.exclusive is None:
        return single_group(models, features)
    a, b = draft.exclusive
    groups = (
        FeatureGroup(models[0], models[:1], a),
        FeatureGroup(SHARED, models, features - a - b),
        FeatureGroup(models[1], models[1:], b),
    )
    return Partition(groups)
