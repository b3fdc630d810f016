"""Loss terms: reconstruction in two forms, and AuxK for dead features.

All terms are per hookpoint and summed: no term of one model is divided by or compared with
anything of another, so that nothing reaches a model through features it does not see.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from train.dictionary.codes import Codes, SparseCodes
from train.dictionary.crosscoder import Crosscoder
from train.dictionary.preactivations import Preactivations
from train.dictionary.selection import topk_of_groups
from train.dictionary_config import LossName
from train.global_batch import GlobalBatch, slice_of
from train.ranks import ALONE
from train.recipes.dead import DeadFeatures

TERMS = ("reconstruction", "sparsity", "gate", "auxk", "ghost")


@dataclass(frozen=True)
class LossResult:
    """The loss with what it was made of; residuals (writing hookpoints) are in scaled units.

    `terms` are unweighted, by name (TERMS); penalised are the codes that the sparsity penalty is
    on; smallest_score is that of a batch-wide selection.
    """

    total: Float[Tensor, ""]
    terms: dict[str, Tensor]
    codes: Codes
    penalised: Codes
    residuals: list[Tensor]
    smallest_score: Tensor | None


def reconstruction_parts(
    kind: LossName,
    residuals: list[Float[Tensor, "batch _width"]],
    weights: list[float] | None = None,
) -> list[Float[Tensor, ""]]:
    """What each hookpoint adds to the reconstruction loss; `weights`: a factor for each."""
    if kind == "squared":
        parts = [e_BD.square().sum(dim=1).mean() for e_BD in residuals]
    else:
        parts = [e_BD.norm(dim=1).mean() / len(residuals) for e_BD in residuals]
    if weights is not None:
        parts = [weight * part for weight, part in zip(weights, parts, strict=True)]
    return parts


def reconstruction_loss(
    kind: LossName,
    residuals: list[Float[Tensor, "batch _width"]],
    weights: list[float] | None = None,
) -> Float[Tensor, ""]:
    """squared: mean over rows of the sum over hookpoints of |x - x_hat|^2 (papers).

    l2: mean over rows and hookpoints of |x - x_hat| (released crosscoder code).
    """
    return torch.stack(reconstruction_parts(kind, residuals, weights)).sum()


def auxk_loss(
    dictionary: Crosscoder,
    pre: Preactivations,
    residuals: list[Float[Tensor, "batch _width"]],
    dead: DeadFeatures,
    whole: GlobalBatch | None = None,
) -> Float[Tensor, ""]:
    """Dead features fit the detached residual (arXiv 2406.04093, appendix A.2).

    Per hookpoint: squared error over the residual's variance; 0 where there is none. The largest
    dead pre-activations are taken per partition group, so that one model's cannot crowd out
    another's. The variance is that of the `whole` global batch.
    """
    targets = [e_BD.detach() for e_BD in residuals]
    whole = whole or slice_of(ALONE, len(targets[0]))
    pattern = topk_of_groups(pre.dense_BF, dead.groups)
    codes = SparseCodes(pattern, pre.at(pattern).relu())
    terms = []
    fits = dictionary.decode_scaled(codes, bias=False)
    for fit_BD, target_BD, variance in zip(fits, targets, whole.variations(targets), strict=True):
        # Dividing by 0 and then replacing the result would leave NaN in the gradient.
        weight = torch.where(variance > 0, 1 / variance, 0)
        terms.append(whole.summed((fit_BD - target_BD).square().sum()) * weight)
    return torch.stack(terms).sum()


def gate_loss(
    kind: LossName,
    dictionary: Crosscoder,
    x: list[Float[Tensor, "batch _width"]],
    gate: Codes,
    weights: list[float] | None = None,
) -> Float[Tensor, ""]:
    """What relu(gate) reconstructs through a frozen decoder (arXiv 2404.16014, L_aux)."""
    residuals = []
    for n in dictionary.outputs:
        W_dec_VD, b_dec_D = dictionary.W_dec[str(n)].detach(), dictionary.b_dec[str(n)].detach()
        x_hat_BD = gate.decode(W_dec_VD, dictionary.visibility(n), n) + b_dec_D
        residuals.append(x[n] - x_hat_BD)
    return reconstruction_loss(kind, residuals, weights)
