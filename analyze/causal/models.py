"""Loads the language models that a store was harvested from, and refuses others.

What the store says of a model is compared with the configuration and with the loaded model; that
its weights are the same shows in its activations, which are compared with stored rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.markup import escape

from analyze.causal.batches import padded_batches, read_rows
from analyze.causal.passages import Passage
from harvest.models.hooked import HookedModel
from pipeline.command import console
from pipeline.errors import ConfigError, ModelError
from pipeline.specs import ModelSpec
from store.reader import Store
from store.sweep import read_range

SAME = ("dtype", "adapter", "revision")
FARTHEST = 0.1
"""Median relative distance between an activation and its stored row: 0.002 is bfloat16's rounding,
0.01 that of int8 or of a bfloat16 model in passes of another shape; other weights give above 1."""


def open_models(store: Store, specs: Mapping[str, ModelSpec]) -> dict[str, HookedModel]:
    """Every model of the store by its name, loaded as the configuration says.

    Raises ConfigError if the configuration does not have a model of the store or says something
    else of it than the harvest was told, ModelError if one cannot be loaded or does not fit.
    """
    for name in store.schema.models:
        if name not in specs:
            raise ConfigError(
                f"models: {store.path} was harvested from a model {name}, the configuration has "
                f"{', '.join(specs)}; use the configuration of the harvest (--config)"
            )
        _refuse_other_spec(store, name, specs[name])
    return {name: _open(store, name, specs[name]) for name in store.schema.models}


def refuse_other_weights(
    store: Store, models: Mapping[str, HookedModel], passages: Sequence[Passage]
) -> None:
    """Raises ModelError if a model's activations are not those of the store. One short pass each.

    The longest passage is looked at.
    """
    passage = max(passages, key=lambda passage: len(passage.rows), default=None)
    if passage is None:
        return
    start, stop = int(passage.rows[0]), int(passage.rows[-1]) + 1
    stored = read_range(store, start, stop).activations
    for name, model in models.items():
        batches = padded_batches([passage.readings[name]], 1)
        found = read_rows(model, batches, len(passage.rows))
        for hookpoint in store.schema.hookpoints:
            if hookpoint.model != name:
                continue
            there = stored[hookpoint.name][passage.rows - start].double()
            apart = (found[hookpoint.name].cpu().double() - there).norm(dim=1)
            distance = float((apart / there.norm(dim=1)).nan_to_num(0).median())
            if distance > FARTHEST:
                raise ModelError(
                    f"models.{name}.path: {model.spec.path}: its activations at {hookpoint.name} "
                    f"are not those of {store.path} (median relative distance {distance:.2g} over "
                    f"{len(passage.rows)} rows); name the model that was harvested"
                )


def _open(store: Store, name: str, spec: ModelSpec) -> HookedModel:
    with console.status(escape(f"loading model {name} from {spec.path}")):
        model = HookedModel(name, spec)
    there = {hookpoint.name: hookpoint.width for hookpoint in model.hookpoints}
    for hookpoint in store.schema.hookpoints:
        if hookpoint.model == name and there.get(hookpoint.name) != hookpoint.width:
            raise ModelError(
                f"models.{name}: {store.path} has {hookpoint.name} of width {hookpoint.width}, the "
                f"model in {spec.path} {_shown(there)}; name the model and hookpoint of the harvest"
            )
    return model


def _shown(there: dict[str, int]) -> str:
    return ", ".join(f"{name} of width {width}" for name, width in there.items())


def _refuse_other_spec(store: Store, name: str, spec: ModelSpec) -> None:
    told = store.schema.config.get("models", {}).get(name, {})
    for key, now in spec.model_dump(include=set(SAME), mode="json").items():
        if told.get(key, now) != now:
            raise ConfigError(
                f"models.{name}.{key}: given {now!r}, {store.path} was harvested with "
                f"{told[key]!r}; set it to that"
            )
