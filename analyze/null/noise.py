"""How noisy a copy must be to say of its model what another model says, and no more.

x_W ~ M y_V + c, x_W all of the base's hookpoints one behind the other and y_V all of the other's,
as a feature's activation is read from all hookpoints of a model, too (`analyze.transfer`). With C
the covariance of x and S that of the errors of the best such map, noise of covariance N leaves the
errors (1/C + 1/N)^-1 to whoever reads x from its copy x + e; they are S for 1/N = 1/S - 1/C. Along
a direction of which the other model does not predict the share s, N is s / (1 - s) times C. It is C
at most: of what the other model lacks, more than half, the copy still tells half. So the null stays
one of features that have a counterpart.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from analyze.null.pair import base_pairs
from analyze.statistics.moments import Moments
from analyze.subject import Subject
from train.linear_map import coordinates, ridge_factor, ridge_map

LEAST_TOLD = 0.5  # share of any direction that the copy tells; of what has a counterpart, that much
RIDGE = 1e-9  # for coordinates that do not vary


def blurring(subject: Subject, moments: Moments) -> Float[Tensor, "bases bases"]:
    """R of such noise R g, g standard normal: raw units, float64, on the CPU.

    Its rows are the base's hookpoints in the order of `base_pairs`. What is not predicted is that
    of held-out rows where there are some. Raises StoreError as `ridge_map` does.
    """
    dictionary, slices = subject.dictionary, moments.slices
    pairs = base_pairs(dictionary)
    own = [slices[pair.own] for pair in pairs]
    index_W, index_V = coordinates(own), coordinates([slices[pair.other] for pair in pairs])
    order = torch.cat([index_W, index_V])
    training, held_out = moments.training().at(order), moments.held_out().at(order)
    judged = held_out if held_out.rows else training
    bases, others = slice(0, len(index_W)), slice(len(index_W), len(order))
    error_WW = ridge_map(training, judged, others, bases).error_TT.cpu()
    if not held_out.rows:  # the map has been fitted to these very errors
        error_WW *= training.rows / max(1, training.rows - len(index_V) - 1)
    root_WW = root_of_noise(error_WW, judged.covariance_WW[bases, bases].cpu())
    scale_W = torch.cat(
        [
            (dictionary.scale[pair.own] * dictionary.norm_scale[pair.own]).expand(s.stop - s.start)
            for pair, s in zip(pairs, own, strict=True)
        ]
    ).cpu()
    return root_WW / scale_W[:, None]


def root_of_noise(
    error_WW: Float[Tensor, "width width"], covariance_WW: Float[Tensor, "width width"]
) -> Float[Tensor, "width width"]:
    """R, of which R R^T is the covariance of the noise, from S and C (float64).

    With C = L L^T and L^-1 S L^-T = U diag(s) U^T: R = L U diag(s / (1 - s))^(1/2).
    """
    L_WW = ridge_factor(covariance_WW, RIDGE).factor_DD
    half_WW = torch.linalg.solve_triangular(L_WW, error_WW, upper=False)
    share_WW = torch.linalg.solve_triangular(L_WW, half_WW.T, upper=False)
    s_W, U_WW = torch.linalg.eigh((share_WW + share_WW.T) / 2)
    s_W = s_W.clamp(0, 1 - LEAST_TOLD)
    return L_WW @ U_WW * (s_W / (1 - s_W)).sqrt()
