"""What makes the features of a dictionary fire: concepts that one model alone has, or others?

The second truth about a feature of a toy model, beside which concept its decoder recovers: a
feature that mixes two concepts of A alone recovers neither, and is A's alone all the same. On new
rows whose concepts are known its activation is regressed on the strengths of all concepts, f ~ w s
+ constant; with C their covariance, what a model's own concepts E say of it is w_E C_EE w_E, what
the others O say w_O C_OO w_O (concepts are hardly correlated: what both say together is left out).

What neither says (thresholds, other nonlinearity) is left out as well.

C concepts, F features. Costs the Gram matrix of strengths and codes: 2 (C + F)^2 FLOPs a row.
"""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.toy_model import MODELS, ToyModel
from train.dictionary.crosscoder import Crosscoder
from train.linear_map import SpreadSums, ridge_factor

ROWS, SEED = 131_072, 1_000_033
RIDGE = 1e-9  # for concepts that never fire on these rows


@torch.no_grad()
def own_shares(dictionary: Crosscoder, toy: ToyModel, rows: int = ROWS) -> dict[str, np.ndarray]:
    """Per model, the share of each feature (F,) that its own concepts make up; NaN if none does."""
    concepts, features = len(toy.owner), dictionary.partition.features
    device = dictionary.b_enc.device
    sums = SpreadSums(concepts + features, torch.device("cpu"))
    for block in toy.blocks(rows, SEED):
        x_BD = {h.name: block.x_BD[h.model].to(device) for h in dictionary.hookpoints}
        codes_BF = dictionary.encode(x_BD).dense().cpu()
        sums.add(torch.cat([block.dense(concepts), codes_BF], dim=1).double())
    covariance = sums.spread().covariance_WW
    C_CC = covariance[:concepts, :concepts]
    w_CF = ridge_factor(C_CC, RIDGE).solve(covariance[:concepts, concepts:])
    found = {}
    for model in MODELS:
        is_own = torch.from_numpy(toy.owner == model)
        own_F, others_F = (
            ((C_CC[of][:, of] @ w_CF[of]) * w_CF[of]).sum(dim=0) for of in (is_own, ~is_own)
        )
        found[model] = (own_F / (own_F + others_F)).numpy()
    return found
