"""Rows of extreme norm are left out of the loss (arXiv 2602.11729, appendix).

First tokens reach ten times the median norm and, squared, would be most of the loss.
B batch rows, D width of a hookpoint.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from train.ranks import ALONE, Ranks


@torch.no_grad()
def kept_rows(
    x: list[Float[Tensor, "batch _width"]], factor: float, ranks: Ranks = ALONE
) -> Bool[Tensor, " batch"]:
    """Which rows to train on: all but those that are outliers at any hookpoint.

    An outlier's norm exceeds `factor` times the batch's median norm (the lower of the two middle
    ones; where each of `ranks` has as many rows, that of all of them). A hookpoint whose median is
    NaN drops no row: a bad batch is to be seen, not hidden.
    """
    kept_B = torch.ones(len(x[0]), dtype=torch.bool, device=x[0].device)
    for x_BD in x:
        norms_B = x_BD.norm(dim=1)
        kept_B &= ~(norms_B > factor * ranks.gather(norms_B).median())
    return kept_B


def drop_outliers(
    x: list[Float[Tensor, "batch _width"]], factor: float, ranks: Ranks = ALONE
) -> list[Float[Tensor, "kept _width"]]:
    """The rows that are kept; how many they are is asked of the device."""
    kept_B = kept_rows(x, factor, ranks)
    return [x_BD[kept_B] for x_BD in x]
