"""Decoder and encoder norms per feature, and what they say of exclusivity.

Relative decoder norm R = |d^A| / (|d^A| + |d^B|) (arXiv 2602.11729): 1 A alone, 0.5 both, 0 B
alone. Norms are in the dictionary's scaled units, in which every model's median activation norm
is the same; in raw units they could be compared across models only if these were equally large.
An encoder's norm is what the activation grows by per unit along it: scaling inputs by s makes it
smaller by s, decoders larger. H hookpoints, F features, V features visible to a hookpoint, D width.
"""

from __future__ import annotations

import numpy as np
import polars as pl
import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.errors import DictionaryError
from train.dictionary.crosscoder import Crosscoder

BINS = ((0.0, 0.2), (0.2, 0.8), (0.8, 1.0))
SHARED, OTHER = "shared", "other"  # tags, beside `<model>_only`
BLOCK = 4096  # features whose decoders are widened to float64 at a time


def model_pair(dictionary: Crosscoder) -> tuple[str, str]:
    """The two models that R compares. Raises DictionaryError for another number of models."""
    models = list(dict.fromkeys(hookpoint.model for hookpoint in dictionary.hookpoints))
    if len(models) != 2:
        raise DictionaryError(
            f"relative decoder norms compare two models; this dictionary has {', '.join(models)}"
        )
    return models[0], models[1]


def model_norms(dictionary: Crosscoder) -> dict[str, np.ndarray]:
    """Decoder norm per model (F,), scaled units; over a model's hookpoints, as of one vector."""
    return _per_model(dictionary, dictionary.decoder_norms())


def raw_model_norms(dictionary: Crosscoder) -> dict[str, np.ndarray]:
    """Decoder norm per model (F,) in the units of its activations: each hookpoint's over its scale.

    The same for a dictionary whose scale is folded into its weights, which are raw then.
    """
    total_scale_H = dictionary.norm_scale * dictionary.scale
    return _per_model(dictionary, dictionary.decoder_norms() / total_scale_H[:, None])


def encoder_norms(dictionary: Crosscoder) -> dict[str, np.ndarray]:
    """Encoder norm per model (F,), activation per scaled unit; 0 where none of its is read."""
    norms_HF = dictionary.b_enc.new_zeros(len(dictionary.hookpoints), dictionary.b_enc.numel())
    for n in dictionary.inputs:
        own_V = dictionary.W_enc[str(n)].norm(dim=1) / dictionary.norm_scale[n]
        norms_HF[n, dictionary.visibility(n).features_V] = own_V
    return _per_model(dictionary, norms_HF)


def _per_model(
    dictionary: Crosscoder, norms_HF: Float[Tensor, "hookpoints features"]
) -> dict[str, np.ndarray]:
    squares = norms_HF.detach().cpu().double().square().numpy()
    norms: dict[str, np.ndarray] = {}
    for number, hookpoint in enumerate(dictionary.hookpoints):
        norms[hookpoint.model] = norms.get(hookpoint.model, 0.0) + squares[number]
    return {model: np.sqrt(value) for model, value in norms.items()}


def relative_decoder_norm(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """R per feature; NaN where both norms are 0."""
    with np.errstate(invalid="ignore"):
        return first / (first + second)


def norm_difference(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """0.5 (1 + (|d^B| - |d^A|) / max) per feature (arXiv 2504.02922); NaN where both are 0.

    0 A alone, 1 B alone: an older form of R, a function of it that runs the other way.
    """
    with np.errstate(invalid="ignore"):
        return 0.5 * (1 + (second - first) / np.maximum(first, second))


def tags(
    relative: np.ndarray, models: tuple[str, str], exclusive: float, shared: float
) -> list[str]:
    """What R says of each feature: `<model>_only`, `shared` or `other`, which NaN is, too.

    The larger of R and 1 - R: above `exclusive` that model's alone, up to `shared` shared
    (arXiv 2504.02922 has 0.9 and 0.6).
    """
    first, second = models
    larger = np.maximum(relative, 1 - relative)
    return np.select(
        [(larger > exclusive) & (relative > 0.5), larger > exclusive, larger <= shared],
        [only(first), only(second), SHARED],
        OTHER,
    ).tolist()


def only(model: str) -> str:
    """The tag of features that this model has alone."""
    return f"{model}_only"


def decoder_cosine(dictionary: Crosscoder, pairs: list[tuple[int, int]]) -> np.ndarray:
    """Cosine of both models' decoders per feature (F,), each over its hookpoints of the pairs.

    pairs: numbers of reconstructed hookpoints of equal width. Scaled units. NaN where a model
    does not see the feature or has no norm. Needs a block of decoders at a time in float64.
    """
    features = dictionary.partition.features
    sums_3F = torch.zeros(3, features, dtype=torch.float64)
    for numbers in pairs:
        seen = [dictionary.visibility(n).local_F for n in numbers]
        both_S = ((seen[0] >= 0) & (seen[1] >= 0)).nonzero().squeeze(1)
        for block_S in both_S.split(BLOCK):
            own, other = (
                dictionary.W_dec[str(n)].detach()[local_F[block_S]].double()
                * dictionary.norm_scale[n].double()
                for n, local_F in zip(numbers, seen, strict=True)
            )
            products = [(own * other).sum(1), own.square().sum(1), other.square().sum(1)]
            sums_3F[:, block_S.cpu()] += torch.stack(products).cpu()
    product_F, own_F, other_F = sums_3F
    return (product_F / (own_F * other_F).sqrt()).numpy()


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
