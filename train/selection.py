"""Which entries of the pre-activations become codes.

In training BatchTopK keeps the k * batch largest scores of the whole batch (arXiv 2412.06410);
at inference every score above a learned threshold, so that a row's code does not depend on the
other rows. A score is relu(pre) times the feature's code normalization; the kept value is
relu(pre) itself.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from train.codes import Pattern
from train.config import NormalizationName


def code_normalization(
    kind: NormalizationName,
    norms_HF: Float[Tensor, "hookpoints features"],
    seen_HF: Float[Tensor, "hookpoints features"],
) -> Float[Tensor, " features"]:
    """What a feature's code is multiplied with to be ranked.

    crosscoder: sum of decoder norms, the field's default. A shared feature then scores about
    twice an exclusive one of the same norm per model; per_model divides by the number of models
    that see the feature. sae: norm of the concatenated decoder. none: 1.
    """
    if kind == "crosscoder":
        return norms_HF.sum(dim=0)
    if kind == "per_model":
        return norms_HF.sum(dim=0) / seen_HF.sum(dim=0)
    if kind == "sae":
        return norms_HF.square().sum(dim=0).sqrt()
    return torch.ones_like(norms_HF[0])


def batch_topk(
    pre_BF: Float[Tensor, "batch features"], scale_F: Float[Tensor, " features"], k: int
) -> tuple[Pattern, Float[Tensor, ""]]:
    """The k * batch largest scores, and the smallest of them (0 if there are fewer positive)."""
    batch, features = pre_BF.shape
    scores = (pre_BF.relu() * scale_F).view(-1)
    top = scores.topk(min(k * batch, scores.numel()), sorted=False)
    return Pattern(top.indices.sort().values, batch, features), top.values.min()


def above_threshold(
    pre_BF: Float[Tensor, "batch features"],
    scale_F: Float[Tensor, " features"],
    threshold: Float[Tensor, ""],
) -> Pattern:
    """Every entry whose score is positive and above the threshold."""
    batch, features = pre_BF.shape
    kept = (pre_BF.relu() * scale_F > threshold).view(-1)
    return Pattern(kept.nonzero().squeeze(1), batch, features)


def topk_of_groups(
    pre_BF: Float[Tensor, "batch features"], groups: list[tuple[Tensor, int]]
) -> Pattern:
    """Per row and group: its `count` largest pre-activations among the group's `members`."""
    batch, features = pre_BF.shape
    offsets = torch.arange(batch, device=pre_BF.device)[:, None] * features
    picked = []
    for members, count in groups:
        top = pre_BF[:, members].topk(min(count, len(members)), dim=1, sorted=False).indices
        picked.append((members[top] + offsets).view(-1))
    return Pattern(torch.cat(picked).sort().values, batch, features)
