"""Which features a command is about: all, those that may be exclusive, a group, or numbers."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int64

from analyze.norms import BINS, model_norms, model_pair, relative_decoder_norm
from pipeline.errors import ConfigError, DictionaryError
from train.dictionary.crosscoder import Crosscoder

ALL, EXCLUSIVE = "all", "exclusive"

Features = Int64[np.ndarray, " features"]


def chosen_features(dictionary: Crosscoder, words: str, model: str | None = None) -> Features:
    """Numbers of features in order, each once.

    words: `all`; `exclusive`, those that may be one model's own, of `model` or of any; the name of
    a group of the partition; or numbers and ranges such as 3,17,100-200. Raises ConfigError.
    """
    features = dictionary.partition.features
    if words == ALL:
        return np.arange(features)
    if words == EXCLUSIVE:
        return exclusive_features(dictionary, model)
    groups = dictionary.partition.slices
    if words in groups:
        return np.arange(features)[groups[words]]
    known = ", ".join([ALL, EXCLUSIVE, *groups])
    found: set[int] = set()
    for word in words.split(","):
        first, dash, last = word.strip().partition("-")
        if not (first.isdecimal() and (last.isdecimal() if dash else not last)):
            raise ConfigError(
                f"--features: given {words!r}; give {known}, or numbers such as 3,17,100-200"
            )
        end = int(last) if dash else int(first)
        if not int(first) <= end < features:
            raise ConfigError(
                f"--features: given {word.strip()!r}; the features are 0 to {features - 1}"
            )
        found.update(range(int(first), end + 1))
    return np.array(sorted(found))


def exclusive_features(dictionary: Crosscoder, model: str | None = None) -> Features:
    """Features that may be exclusive to `model`, or to either: members of its exclusive group.

    Of a dictionary without such groups: R above 0.8 or below 0.2; of a single model: all.
    """
    partition = dictionary.partition
    models = list(dict.fromkeys(hookpoint.model for hookpoint in dictionary.hookpoints))
    wanted = models if model is None else [model]
    if len(models) == 1:
        return np.arange(partition.features)
    own = [partition.exclusive_group(name) for name in models]
    if any(group is not None and group.size for group in own):
        groups = [partition.exclusive_group(name) for name in wanted]
        members = [np.arange(partition.features)[partition.slices[g.name]] for g in groups if g]
        return np.sort(np.concatenate([np.zeros(0, np.int64), *members]))
    return _extreme(dictionary, wanted)


def _extreme(dictionary: Crosscoder, models: list[str]) -> Features:
    first, second = model_pair(dictionary)
    norms = model_norms(dictionary)
    relative = relative_decoder_norm(norms[first], norms[second])
    high, low = relative > BINS[-1][0], relative < BINS[0][1]
    return np.flatnonzero((high & (first in models)) | (low & (second in models)))


def check_model(dictionary: Crosscoder, model: str | None) -> str:
    """The model, or the last one if none is named. Raises DictionaryError for an unknown one."""
    models = list(dict.fromkeys(hookpoint.model for hookpoint in dictionary.hookpoints))
    if model is None:
        return models[-1]
    if model not in models:
        raise DictionaryError(
            f"--model: given {model!r}; the dictionary's models are {', '.join(models)}"
        )
    return model
