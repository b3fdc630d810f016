"""Which features are described: those that only one model may have, the strongest first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Int64

from analyze.norms import BINS, model_norms, model_pair, relative_decoder_norm
from analyze.statistics.cofiring import CoFiring
from pipeline.errors import ConfigError
from train.dictionary.crosscoder import Crosscoder

LOW, HIGH = BINS[0][1], BINS[-1][0]
MOST_PER_MODEL = 1 << 14  # co-firing of as many from each model takes 4 GB


def candidates(dictionary: Crosscoder) -> dict[str, Int64[np.ndarray, " own"]]:
    """Per model the features that it may have alone, ascending.

    Those of its exclusive group; where no model has one, features of which relative decoder norm
    says so: R > 0.8 for the first model, R < 0.2 for the second. Raises DictionaryError unless
    two models are compared.
    """
    models, partition = model_pair(dictionary), dictionary.partition
    groups = {model: partition.exclusive_group(model) for model in models}
    if any(group is not None and group.size for group in groups.values()):
        everything = np.arange(partition.features)
        return {
            model: everything[partition.slices[group.name]] if group else everything[:0]
            for model, group in groups.items()
        }
    relative = _relative(dictionary)
    first, second = relative > HIGH, relative < LOW
    return {model: np.flatnonzero(own) for model, own in zip(models, (first, second), strict=True)}


def cofiring(dictionary: Crosscoder) -> CoFiring:
    """Counts how candidates of the two models fire together.

    At most MOST_PER_MODEL of each: beyond that, those with the largest decoder norms.
    """
    norms = model_norms(dictionary)
    own = [
        np.sort(features[np.argsort(-norms[model][features], kind="stable")[:MOST_PER_MODEL]])
        for model, features in candidates(dictionary).items()
    ]
    return CoFiring(dictionary.partition.features, own[0], own[1], dictionary.b_enc.device)


def strongest(
    features: Int64[np.ndarray, " some"], activation_F: Float64[np.ndarray, " features"], most: int
) -> Int64[np.ndarray, " chosen"]:
    """At most `most` of the features that fire, by summed activation, the largest first."""
    order = np.argsort(-activation_F[features], kind="stable")
    ranked = features[order][:most]
    return ranked[activation_F[ranked] > 0]


def check_features(dictionary: Crosscoder, features: Sequence[int]) -> None:
    """Raises ConfigError if there is no feature of one of these numbers."""
    last = dictionary.partition.features - 1
    for feature in features:
        if not 0 <= feature <= last:
            raise ConfigError(
                f"feature {feature}: there is none; the dictionary has features 0 to {last}"
            )


def _relative(dictionary: Crosscoder) -> Float64[np.ndarray, " features"]:
    first, second = model_pair(dictionary)
    norms = model_norms(dictionary)
    return relative_decoder_norm(norms[first], norms[second])
