"""Decoder norms per feature, and what they say of exclusivity.

Relative decoder norm R = |d^A| / (|d^A| + |d^B|) (arXiv 2602.11729): 1 A alone, 0.5 both, 0 B
alone. Norms are in the dictionary's scaled units, in which every model's median activation norm
is the same; in raw units they could not be compared across models.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from analyze.statistics.firing import Firing
from pipeline.errors import DictionaryError
from train.dictionary.crosscoder import Crosscoder

BINS = ((0.0, 0.2), (0.2, 0.8), (0.8, 1.0))


def model_pair(dictionary: Crosscoder) -> tuple[str, str]:
    """The two models that R compares. Raises DictionaryError for another number of models."""
    models = list(dict.fromkeys(hookpoint.model for hookpoint in dictionary.hookpoints))
    if len(models) != 2:
        raise DictionaryError(
            f"relative decoder norms compare two models; this dictionary has {', '.join(models)}"
        )
    return models[0], models[1]


def model_norms(dictionary: Crosscoder) -> dict[str, np.ndarray]:
    """Decoder norm per model (F,); over all hookpoints of the model, as of one vector."""
    squares = dictionary.decoder_norms().detach().square().cpu().double().numpy()
    norms: dict[str, np.ndarray] = {}
    for number, hookpoint in enumerate(dictionary.hookpoints):
        norms[hookpoint.model] = norms.get(hookpoint.model, 0.0) + squares[number]
    return {model: np.sqrt(value) for model, value in norms.items()}


def relative_decoder_norm(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """R per feature; NaN where both norms are 0."""
    with np.errstate(invalid="ignore"):
        return first / (first + second)


def norms_table(dictionary: Crosscoder, sums: Firing) -> pl.DataFrame:
    """One line per feature: group, norms, R, firing, and the share of its firing per label."""
    first, second = model_pair(dictionary)
    norms = model_norms(dictionary)
    shares = sums.shares()
    return pl.DataFrame(
        {
            "feature": np.arange(dictionary.partition.features),
            "group": dictionary.partition.group_of_feature(),
            f"decoder_norm_{first}": norms[first],
            f"decoder_norm_{second}": norms[second],
            "relative_decoder_norm": relative_decoder_norm(norms[first], norms[second]),
            "density": sums.density,
            "fires": sums.fires.sum(axis=1),
            "activation_sum": sums.activation.sum(axis=1),
            "activation_max": sums.largest.astype(np.float64),
            **{f"share_{label}": shares[:, n] for n, label in enumerate(sums.labels.names)},
        }
    ).with_columns(pl.col("relative_decoder_norm").fill_nan(None))


def group_summary(table: pl.DataFrame) -> pl.DataFrame:
    """Per partition group: features, alive, dead, mean active per row, median R of the alive."""
    alive = pl.col("fires") > 0
    return table.group_by("group", maintain_order=True).agg(
        features=pl.len(),
        alive=alive.sum(),
        dead=(~alive).sum(),
        active_per_row=pl.col("density").sum(),
        median_relative_norm=pl.col("relative_decoder_norm").filter(alive).median(),
    )


def bin_counts(table: pl.DataFrame) -> dict[str, int]:
    """Alive features per bin of R."""
    alive = table.filter(pl.col("fires") > 0)["relative_decoder_norm"].drop_nulls().to_numpy()
    edges = [BINS[0][0], *(high for _, high in BINS)]
    counts, _ = np.histogram(alive, edges)
    return {f"{low:.1f}-{high:.1f}": int(n) for (low, high), n in zip(BINS, counts, strict=True)}
