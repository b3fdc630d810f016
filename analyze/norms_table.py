"""The table of norms: a line per feature with norms, what they call it, and how it fires."""

from __future__ import annotations

import numpy as np
import polars as pl

from analyze.config import AnalyzeConfig
from analyze.norms import (
    OTHER,
    SHARED,
    decoder_cosine,
    encoder_norms,
    model_norms,
    model_pair,
    norm_difference,
    only,
    raw_model_norms,
    relative_decoder_norm,
    tags,
)
from analyze.pairing import hookpoint_pairs
from analyze.statistics.firing import Firing
from pipeline.errors import DictionaryError
from train.dictionary.crosscoder import Crosscoder


def norms_table(dictionary: Crosscoder, sums: Firing, config: AnalyzeConfig) -> pl.DataFrame:
    """One line per feature: group, tag, norms, R, firing, and the share of its firing per label.

    Norms of decoders are null for a model of which nothing is reconstructed, those of encoders for
    one of which nothing is read, and what compares them for all. `decoder_cosine` is null where
    the models' hookpoints do not come in pairs of equal width. Raises DictionaryError unless there
    are two models.
    """
    first, second = models = model_pair(dictionary)
    written = {hookpoint.model for hookpoint in dictionary.hookpoints if hookpoint.writes}
    read = {hookpoint.model for hookpoint in dictionary.hookpoints if hookpoint.reads}
    decoder = _known(model_norms(dictionary), written)
    encoder = _known(encoder_norms(dictionary), read)
    raw = _known(raw_model_norms(dictionary), written)
    relative = relative_decoder_norm(decoder[first], decoder[second])
    shares = sums.shares()
    return pl.DataFrame(
        {
            "feature": np.arange(dictionary.partition.features),
            "group": dictionary.partition.group_of_feature(),
            "tag": tags(relative, models, config.norm_exclusive, config.norm_shared),
            **{f"decoder_norm_{model}": decoder[model] for model in models},
            **{f"encoder_norm_{model}": encoder[model] for model in models},
            **{f"decoder_norm_raw_{model}": raw[model] for model in models},
            "relative_decoder_norm": relative,
            "relative_decoder_norm_raw": relative_decoder_norm(raw[first], raw[second]),
            "relative_encoder_norm": relative_decoder_norm(encoder[first], encoder[second]),
            "norm_difference": norm_difference(decoder[first], decoder[second]),
            "decoder_cosine": decoder_cosine(dictionary, _equal_pairs(dictionary)),
            "density": sums.density,
            "fires": sums.fires.sum(axis=1),
            "activation_sum": sums.activation.sum(axis=1),
            "activation_max": sums.largest.astype(np.float64),
            **{f"share_{label}": shares[:, n] for n, label in enumerate(sums.labels.names)},
        }
    ).with_columns(pl.col(pl.Float64).fill_nan(None))


def tag_counts(table: pl.DataFrame, models: tuple[str, str]) -> pl.DataFrame:
    """Per partition group: how many of its alive features have each tag, a column per tag."""
    alive = pl.col("fires") > 0
    names = (only(models[0]), SHARED, only(models[1]), OTHER)
    return table.group_by("group", maintain_order=True).agg(
        (alive & (pl.col("tag") == name)).sum().alias(name) for name in names
    )


def norm_medians(table: pl.DataFrame) -> dict[str, float | None]:
    """Medians over alive features of what compares the two models; None where all are null."""
    names = [name for name in table.columns if name.startswith("relative_")]
    alive = table.filter(pl.col("fires") > 0).select(*names, "decoder_cosine")
    return alive.median().row(0, named=True)


def _known(norms: dict[str, np.ndarray], models: set[str]) -> dict[str, np.ndarray]:
    """The norms, NaN for a model that has none of its own."""
    return {m: norm if m in models else np.full_like(norm, np.nan) for m, norm in norms.items()}


def _equal_pairs(dictionary: Crosscoder) -> list[tuple[int, int]]:
    """Pairs of hookpoints if all of them are equally wide, else none."""
    try:
        pairs = hookpoint_pairs(dictionary)
    except DictionaryError:  # not as many of one model as of the other
        return []
    equal = all(pair.equal_widths(dictionary) for pair in pairs)
    return [(pair.own, pair.other) for pair in pairs] if equal else []
