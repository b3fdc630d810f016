"""The tables `features` and `contexts` of chosen features."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import polars as pl
import torch
from jaxtyping import Int64

from analyze.contexts import Context, Firings, read_contexts
from analyze.features.mirrors import mirror_of
from analyze.pairing import claimed_for
from analyze.statistics.firing import Firing
from analyze.subject import Subject
from train.dictionary.crosscoder import Crosscoder

QUANTILES = {"q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
SURROGATE = re.compile("[\ud800-\udfff]")
CONTEXTS_AT_ONCE = 1 << 15  # whose windows and texts are held as Python's at a time


def features_table(
    dictionary: Crosscoder,
    firing: Firing,
    features: Int64[np.ndarray, " chosen"],
    mirrors: pl.DataFrame,
) -> pl.DataFrame:
    """One line per chosen feature, in their order.

    feature, group, claimed_for (its exclusive group's model, else that with the larger decoder
    norm), density, fires, activation_q10, _q50, _q90, _q99 (of where it fires; within 4.5%),
    activation_max, share_<label> of its firings, mirror and mirror_jaccard (null: none).
    """
    groups = np.array(dictionary.partition.group_of_feature(), object)
    quantiles, shares = firing.quantiles(list(QUANTILES.values())), firing.shares()
    columns = {f"activation_{name}": quantiles[:, n] for n, name in enumerate(QUANTILES)}
    columns["activation_max"] = firing.largest.astype(np.float64)
    columns |= {f"share_{label}": shares[:, n] for n, label in enumerate(firing.labels.names)}
    table = pl.DataFrame(
        {
            "feature": features,
            "group": groups[features].tolist(),
            "claimed_for": _owner(dictionary)[features].tolist(),
            "density": firing.density[features],
            "fires": firing.fires.sum(axis=1)[features],
            **{name: values[features] for name, values in columns.items()},
        }
    ).with_columns(pl.col("^activation_q.*$").fill_nan(None))
    return table.join(mirror_of(mirrors), on="feature", how="left", maintain_order="left")


def contexts_table(
    subject: Subject,
    firing: Firing,
    shown: pl.DataFrame,
    reach: int,
    batch_rows: int,
    on_contexts: Callable[[float], None] = lambda contexts: None,
) -> pl.DataFrame:
    """The texts of the firings to show (see shown_firings), line by line.

    feature, band, rank, document, label, row, activation, pieces, strengths (of each piece, as a
    share of the feature's largest activation), peak (index of the row's own piece), text.
    """
    features = shown["feature"].to_numpy()
    activations = shown["activation"].to_numpy()
    firings = Firings(features, shown["row"].to_numpy(), activations, firing.largest[features])
    parts = [_texts([])]
    for start in range(0, len(firings), CONTEXTS_AT_ONCE):
        block = firings.part(start, start + CONTEXTS_AT_ONCE)
        parts.append(_texts(read_contexts(subject, block, reach, batch_rows, on_contexts)))
    order = ["feature", "band", "rank", "document", "label", "row", "activation"]
    table = shown.hstack(pl.concat(parts))
    return table.select(*order, pl.exclude(order))


def _texts(contexts: list[Context]) -> pl.DataFrame:
    pieces = [_writable(context.texts) for context in contexts]
    return pl.DataFrame(
        {
            "document": [context.document for context in contexts],
            "label": [context.label for context in contexts],
            "pieces": pieces,
            "strengths": [context.strengths for context in contexts],
            "peak": [context.peak for context in contexts],
            "text": ["".join(texts) for texts in pieces],
        },
        schema={
            "document": pl.Int64,
            "label": pl.String,
            "pieces": pl.List(pl.String),
            "strengths": pl.List(pl.Float32),
            "peak": pl.Int64,
            "text": pl.String,
        },
    )


def _writable(texts: list[str]) -> list[str]:
    """Half characters, which Python's text may hold and a file may not, become U+FFFD."""
    if not SURROGATE.search("".join(texts)):
        return texts
    return [SURROGATE.sub("\ufffd", text) for text in texts]


def _owner(dictionary: Crosscoder) -> np.ndarray:
    """The model that each feature is claimed for (F,)."""
    owner = np.full(dictionary.partition.features, "", object)
    for model, owned_F in claimed_for(dictionary).items():
        owner[torch.nonzero(owned_F).squeeze(1).cpu().numpy()] = model
    return owner
