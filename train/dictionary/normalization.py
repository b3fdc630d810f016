"""Code normalization: what a feature's code is multiplied with to be ranked against the others."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from train.dictionary_config import NormalizationName

MIXED_SAE, MIXED_CROSSCODER = 1.0, 0.1


def code_normalization(
    kind: NormalizationName,
    norms_HF: Float[Tensor, "hookpoints features"],
    seen_HF: Float[Tensor, "hookpoints features"],
) -> Float[Tensor, " features"] | Float[Tensor, "hookpoints features"]:
    """One factor per feature; for `decoupled` one per hookpoint and feature.

    crosscoder: sum of decoder norms, the field's default. A shared feature then scores about
    twice an exclusive one of the same norm per model; per_model divides by the number of models
    that see the feature. sae: norm of the concatenated decoder. mixed: 1.0 sae + 0.1 crosscoder.
    decoupled: the norm at each hookpoint. none: 1.
    """
    if kind == "crosscoder":
        return norms_HF.sum(dim=0)
    if kind == "per_model":
        return norms_HF.sum(dim=0) / seen_HF.sum(dim=0).clamp(min=1)
    if kind == "sae":
        return norms_HF.norm(dim=0)
    if kind == "mixed":
        return MIXED_SAE * norms_HF.norm(dim=0) + MIXED_CROSSCODER * norms_HF.sum(dim=0)
    if kind == "decoupled":
        return norms_HF
    return torch.ones_like(norms_HF[0])
