"""Loss terms: reconstruction in two forms, and AuxK for dead features.

All terms are per hookpoint and summed: no term of one model is divided by or compared with
anything of another, so that nothing reaches a model through features it does not see.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from train.config import LossName
from train.dictionary.codes import SparseCodes
from train.dictionary.crosscoder import Crosscoder
from train.dictionary.selection import topk_of_groups


@dataclass(frozen=True)
class DeadFeatures:
    """Per partition group: its dead features and how many of them AuxK uses per row."""

    groups: list[tuple[Tensor, int]]


def reconstruction_loss(
    kind: LossName, residuals: list[Float[Tensor, "batch _width"]]
) -> Float[Tensor, ""]:
    """squared: mean over rows of the sum over hookpoints of |x - x_hat|^2 (papers).

    l2: mean over rows and hookpoints of |x - x_hat| (released crosscoder code).
    """
    if kind == "squared":
        return torch.stack([e_BD.square().sum(dim=1).mean() for e_BD in residuals]).sum()
    return torch.stack([e_BD.norm(dim=1).mean() for e_BD in residuals]).mean()


def auxk_loss(
    dictionary: Crosscoder,
    x: list[Float[Tensor, "batch _width"]],
    pre_BF: Float[Tensor, "batch features"],
    residuals: list[Float[Tensor, "batch _width"]],
    dead: DeadFeatures,
) -> Float[Tensor, ""]:
    """Dead features fit the detached residual (arXiv 2406.04093, appendix A.2).

    Per hookpoint: squared error over the residual's variance; 0 where there is none. The largest
    dead pre-activations are taken per partition group, so that one model's cannot crowd out
    another's.
    """
    pattern = topk_of_groups(pre_BF, dead.groups)
    codes = dictionary.codes_at(x, pre_BF, pattern)
    terms = []
    for fit_BD, e_BD in zip(dictionary.decode_scaled(codes, bias=False), residuals, strict=True):
        target_BD = e_BD.detach()
        variance = (target_BD - target_BD.mean(dim=0)).square().sum()
        # Dividing by 0 and then replacing the result would leave NaN in the gradient.
        weight = torch.where(variance > 0, 1 / variance, 0)
        terms.append((fit_BD - target_BD).square().sum() * weight)
    return torch.stack(terms).sum()


@dataclass(frozen=True)
class LossResult:
    """The loss with what it was made of; residuals are in scaled units."""

    total: Float[Tensor, ""]
    terms: dict[str, Tensor]
    codes: SparseCodes
    residuals: list[Tensor]
    smallest_score: Float[Tensor, ""]
