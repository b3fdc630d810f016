"""Designated shared features (DSF): features with one decoder direction at all hookpoints.

The baseline of arXiv 2602.11729. Each hookpoint keeps its own weights; designated rows start equal
and get the sum of their gradients, which is the gradient of one shared row: Adam, whose moments are
then equal too, keeps them equal bit by bit. V features visible to a hookpoint, D width, T tied
features; `rows` are their places in each hookpoint's weights (Visibility.local_F).
"""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from pipeline.errors import ConfigError


def check_equal_widths(widths: dict[str, int]) -> None:
    """Raises ConfigError if the hookpoints, name -> width, cannot share a direction."""
    (first, width), *others = widths.items()
    for name, other in others:
        if other != width:
            raise ConfigError(
                f"train.designated: {first} is {width} wide and {name} {other}, and designated "
                "shared features need one width; set it to 0 or use recipe dfc"
            )


@torch.no_grad()
def tie_rows(weights: list[Tensor], rows: list[Int[Tensor, " tied"]]) -> None:
    """Copies the first weight's tied rows to the others.

    To be called at initialisation and after whatever else writes rows (resampling, renormalising:
    their rounding may depend on a weight's shape).
    """
    for W_VD, rows_T in zip(weights[1:], rows[1:], strict=True):
        W_VD[rows_T] = weights[0][rows[0]]


@torch.no_grad()
def tie_gradients(weights: list[Tensor], rows: list[Int[Tensor, " tied"]]) -> None:
    """After backward: replaces the gradients of tied rows by their sum, in every weight.

    A weight without a gradient counts as 0, and gets one if another has one. Clipping by the norm
    of all gradients comes after and counts tied rows once per hookpoint.
    """
    grads = [W_VD.grad for W_VD in weights]
    if all(grad is None for grad in grads):
        return
    total_TD = sum(
        grad[rows_T] for grad, rows_T in zip(grads, rows, strict=True) if grad is not None
    )
    for W_VD, rows_T in zip(weights, rows, strict=True):
        if W_VD.grad is None:
            W_VD.grad = torch.zeros_like(W_VD)
        W_VD.grad[rows_T] = total_TD
