"""Which tokens each feature's direction promotes and suppresses in each model: the logit lens.

The decoder direction at the model's last hookpoint on the residual stream goes through the final
norm and the output head (see harvest.models.unembed for the convention); what the layers between
would make of it is left out, so a lens from an early layer says little.
Costs 2 N D V FLOPs and a read of the head per FEATURES_AT_ONCE features.
N features, D width, V tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Int64

from analyze.causal.models import open_models, refuse_other_weights
from analyze.causal.passages import find_passages, sample_documents
from analyze.norms import model_pair
from harvest.models.hooked import HookedModel
from harvest.models.unembed import Extremes, Unembedding, find_unembedding, token_texts
from pipeline.errors import CrossdiffError, ModelError, StoreError
from pipeline.specs import ModelSpec
from store.reader import Store
from train.dictionary.crosscoder import Crosscoder

KEPT = 10
FEATURES_AT_ONCE = 4096
COMPARED_DOCUMENTS = 4  # of which the longest tells whether the model is the one harvested
SCHEMA: dict[str, Any] = {
    **{"feature": pl.Int64, "model": pl.String, "hookpoint": pl.String, "promoted": pl.Boolean},
    **{"rank": pl.Int64, "token": pl.String, "logit": pl.Float64},
}


@dataclass(frozen=True)
class Lens:
    """What reads the directions at one hookpoint of a model, which is given by its number."""

    model: str
    hookpoint: int
    unembedding: Unembedding
    tokenizer: Any


@dataclass(frozen=True)
class Lenses:
    """One per model that has one; notes: why others do not."""

    found: tuple[Lens, ...]
    notes: tuple[str, ...]


def open_lenses(store: Store, dictionary: Crosscoder, specs: Mapping[str, ModelSpec]) -> Lenses:
    """Loads the store's models and keeps their final norms and output heads.

    Where models cannot be loaded, or are others than were harvested, it says so in a note.
    """
    try:
        models = open_models(store, specs)
        _refuse_others(store, models)
    except CrossdiffError as error:
        return Lenses((), (f"no logit lens: {error}",))
    found, notes = [], []
    for name in model_pair(dictionary):
        try:
            found.append(_lens(dictionary, name, models[name]))
        except ModelError as error:
            notes.append(str(error))
    return Lenses(tuple(found), tuple(notes))


def tokens_table(
    dictionary: Crosscoder,
    lenses: Lenses,
    features: Int64[np.ndarray, " chosen"],
    count: int = KEPT,
) -> pl.DataFrame:
    """Lines of feature, model, hookpoint, promoted or not, rank (from 1), token, logit.

    A feature that a model does not see, or that has no norm there, has none of that model.
    """
    parts = [_of_model(dictionary, lens, features, count) for lens in lenses.found]
    return pl.concat([pl.DataFrame(schema=SCHEMA), *parts])


def _lens(dictionary: Crosscoder, name: str, model: HookedModel) -> Lens:
    unembedding = find_unembedding(name, model.module, model.tokenizer)
    written = {dictionary.hookpoints[n].name: n for n in dictionary.outputs}
    own = [hookpoint for hookpoint in unembedding.residual if hookpoint in written]
    if not own:
        here = [h.name for h in dictionary.hookpoints if h.model == name]
        raise ModelError(
            f"models.{name}: no logit lens: none of its reconstructed hookpoints is on the "
            f"residual stream ({', '.join(here)})"
        )
    return Lens(name, written[own[-1]], unembedding, model.tokenizer)


def _refuse_others(store: Store, models: Mapping[str, HookedModel]) -> None:
    """Raises ModelError for other models than those harvested, where that can be told."""
    documents = sample_documents(store, COMPARED_DOCUMENTS)
    try:
        passages = find_passages(store, models, documents)
    except StoreError:  # rows are means over tokens: no position of a model is one
        return
    refuse_other_weights(store, models, passages.found)


def _of_model(dictionary: Crosscoder, lens: Lens, features: np.ndarray, count: int) -> pl.DataFrame:
    W_VD = dictionary.W_dec[str(lens.hookpoint)].detach()
    local = dictionary.visibility(lens.hookpoint).local_F.cpu()[torch.from_numpy(features)]
    seen = local[local >= 0].to(W_VD.device)
    local = seen[W_VD[seen].norm(dim=1) > 0]
    numbers = dictionary.visibility(lens.hookpoint).features_V[local].cpu().numpy()
    parts = [pl.DataFrame(schema=SCHEMA)]
    for start in range(0, len(numbers), FEATURES_AT_ONCE):
        block = slice(start, start + FEATURES_AT_ONCE)
        both = lens.unembedding.extremes(W_VD[local[block]].float(), count)
        for extremes, promoted in zip(both, (True, False), strict=True):
            parts.append(_lines(dictionary, lens, numbers[block], extremes, promoted))
    return pl.concat(parts).sort("feature", "promoted", "rank", descending=[False, True, False])


def _lines(
    dictionary: Crosscoder, lens: Lens, features: np.ndarray, extremes: Extremes, promoted: bool
) -> pl.DataFrame:
    kept = extremes.tokens.shape[1]
    each, places = np.unique(extremes.tokens.cpu().numpy(), return_inverse=True)
    texts = np.array([*token_texts(lens.tokenizer, each.tolist()), ""], object)
    return pl.DataFrame(
        {
            "feature": np.repeat(features, kept),
            "model": [lens.model] * places.size,
            "hookpoint": [dictionary.hookpoints[lens.hookpoint].name] * places.size,
            "promoted": [promoted] * places.size,
            "rank": np.tile(np.arange(1, kept + 1), len(features)),
            "token": texts[places.ravel()].tolist(),
            "logit": extremes.scores.flatten().cpu().numpy(),
        },
        schema=SCHEMA,
    )
