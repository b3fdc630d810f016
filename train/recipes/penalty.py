"""Sparsity penalties on codes: L1, L_p^p, entropy and L0. Means over rows of a sum over features.

Weights per feature are the code normalization (decoder norms), so that shrinking codes and growing
decoders in their place gains nothing; in the L1 crosscoder (transformer-circuits.pub/2024/
crosscoders) they are differentiated like everything else, so `weight_F` may carry a gradient.
B batch rows, F features, N values.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from train.dictionary.codes import Codes, DenseCodes, Pattern
from train.dictionary.straight_through import active_indicator

SMALLEST_CODE = 1e-5  # below it, L_p^p follows its chord: the derivative at 0 would be infinite
SMALLEST_SUM = 1e-12  # a row whose codes sum up to less counts as empty: its shares are rounding


class _RowSums(torch.autograd.Function):
    """Sums of entries per row; a fixed order of additions on every device."""

    @staticmethod
    def forward(ctx: Any, values_N: Tensor, pattern: Pattern) -> Tensor:
        ctx.pattern = pattern
        return torch.segment_reduce(values_N, "sum", offsets=pattern.row_starts, unsafe=True)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_B: Tensor) -> tuple[Tensor | None, ...]:
        return grad_B[ctx.pattern.rows], None


def row_sums(codes: Codes, terms: Float[Tensor, "*values"]) -> Float[Tensor, " batch"]:
    """Sum per row of `terms`, one for each of the codes' values; differentiable in them."""
    if isinstance(codes, DenseCodes):
        return terms.sum(dim=1)
    return _RowSums.apply(terms, codes.pattern)


def l1(
    codes: Codes,
    weight_F: Float[Tensor, " features"] | None = None,
) -> Float[Tensor, ""]:
    """Mean over rows of sum_j f_j w_j; `weight_F` None: all 1."""
    return _mean(codes, _weighted(codes, codes.values, weight_F))


def lp(
    codes: Codes,
    p: float,
    weight_F: Float[Tensor, " features"] | None = None,
) -> Float[Tensor, ""]:
    """Mean over rows of sum_j f_j^p w_j, for 0 < p <= 1 (arXiv 2408.00113).

    Below eps = SMALLEST_CODE, f^p is replaced by its chord f * eps^(p - 1): exact at 0 and at eps,
    concave, and the slope is at most eps^(p - 1) (1e4 at p = 0.2).
    """
    f = codes.values
    # Clamped although masked: a power of 0 would leave NaN in the gradient.
    powers = f.clamp(min=SMALLEST_CODE).pow(p)
    terms = torch.where(f > SMALLEST_CODE, powers, f * SMALLEST_CODE ** (p - 1))
    return _mean(codes, _weighted(codes, terms, weight_F))


def entropy(codes: Codes) -> Float[Tensor, ""]:
    """Mean over rows of -sum_j q_j log q_j in nats, q the row's codes over their sum.

    The alternative to L1 of Bricken et al. (2023). 0 log 0 = 0, without a gradient; rows without
    codes count 0. With S the row's sum, it is log S - (sum_j f_j log f_j) / S.
    """
    f = codes.values
    positive = f > 0
    logs = torch.where(positive, f, 1).log()
    sum_B = row_sums(codes, f)
    empty_B = sum_B <= SMALLEST_SUM
    safe_B = torch.where(empty_B, 1, sum_B)
    rows_B = safe_B.log() - row_sums(codes, f * logs) / safe_B
    rows_B = torch.where(empty_B, 0, rows_B)
    return rows_B.mean()


def l0_ste(
    pre: Float[Tensor, "*entries"],
    threshold: Tensor,
    bandwidth: float,
    batch: int,
) -> Float[Tensor, ""]:
    """Mean over `batch` rows of the number of entries with pre > threshold (arXiv 2407.14435).

    Its gradient is a straight-through estimate, to thresholds alone: -(1 / eps) K((pre - theta) /
    eps) per entry, K(u) = 1[|u| < 1/2]. Entries up to eps / 2 below their threshold must be among
    `pre`, or thresholds are only ever pushed up. `threshold` broadcasts to `pre`.
    """
    return active_indicator(pre, threshold, bandwidth).sum() / batch


def l0_target_loss(l0: Float[Tensor, ""], target: float) -> Float[Tensor, ""]:
    """(l0 / target - 1)^2: a penalty toward a wanted L0 in place of one toward 0."""
    return (l0 / target - 1).square()


def _weighted(codes: Codes, terms: Tensor, weight_F: Tensor | None) -> Tensor:
    return terms if weight_F is None else terms * codes.spread(weight_F)


def _mean(codes: Codes, terms: Tensor) -> Tensor:
    return terms.sum() / codes.batch
