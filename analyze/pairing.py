"""Which hookpoint of one model is held against which of the other, and whose each feature is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from analyze.norms import model_norms, model_pair
from pipeline.errors import DictionaryError
from train.dictionary.crosscoder import Crosscoder


@dataclass(frozen=True)
class HookpointPair:
    """Numbers of two hookpoints: of the model that features are claimed for, and of the other."""

    own: int
    other: int

    def reversed(self) -> HookpointPair:
        """The same pair, seen from the other model."""
        return HookpointPair(self.other, self.own)

    def equal_widths(self, dictionary: Crosscoder) -> bool:
        """Whether a direction of one hookpoint is one of the other, too."""
        return dictionary.hookpoints[self.own].width == dictionary.hookpoints[self.other].width


def hookpoint_pairs(dictionary: Crosscoder) -> list[HookpointPair]:
    """The first model's reconstructed hookpoints with the second's, in order.

    Raises DictionaryError unless there are two models with as many of them.
    """
    models = model_pair(dictionary)
    first, second = (
        [n for n in dictionary.outputs if dictionary.hookpoints[n].model == model]
        for model in models
    )
    if len(first) != len(second) or not first:
        raise DictionaryError(
            f"{models[0]} has {len(first)} reconstructed hookpoints and {models[1]} {len(second)}; "
            "they are compared in pairs, so they must be as many"
        )
    return [HookpointPair(a, b) for a, b in zip(first, second, strict=True)]


def claimed_for(dictionary: Crosscoder) -> dict[str, Tensor]:
    """Per model, the features (F,) that it is the likelier owner of: bool, each feature once.

    Those of its exclusive group; of features that both see, those with the larger decoder norm.
    """
    first, second = model_pair(dictionary)
    norms = model_norms(dictionary)
    is_first = torch.from_numpy(norms[first] >= norms[second]).to(dictionary.b_enc.device)
    return {first: is_first, second: ~is_first}
