"""Straight-through estimates of JumpReLU (Rajamanoharan et al., arXiv 2407.14435).

The step at a feature's threshold has no useful derivative; a rectangle of width `bandwidth` around
it stands in for one. Pre-activations of 0 or less have no part in either function.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def jump_relu(pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
    """relu(pre) where pre > threshold, else 0; `threshold` broadcasts to `pre`.

    Gradient: 1 to active entries; -(threshold / bandwidth) to thresholds of entries near theirs.
    """
    return _JumpReLU.apply(pre, threshold, bandwidth)


def active_indicator(pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
    """1 where pre > max(threshold, 0), else 0: summed, an L0 with a gradient.

    Gradient: -1 / bandwidth to thresholds of entries near theirs, none to pre.
    """
    return _Active.apply(pre, threshold, bandwidth)


def _near(pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
    return ((pre - threshold).abs() < bandwidth / 2) & (pre > 0)


def _active(pre: Tensor, threshold: Tensor) -> Tensor:
    return (pre > threshold) & (pre > 0)


class _JumpReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(pre, threshold)
        ctx.bandwidth = bandwidth
        return pre * _active(pre, threshold)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        pre, threshold = ctx.saved_tensors
        near = _near(pre, threshold, ctx.bandwidth)
        to_threshold = -(threshold / ctx.bandwidth) * near * grad
        return grad * _active(pre, threshold), to_threshold.sum_to_size(threshold.shape), None


class _Active(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(pre, threshold)
        ctx.bandwidth = bandwidth
        return _active(pre, threshold).to(pre.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, None]:
        pre, threshold = ctx.saved_tensors
        to_threshold = -(1 / ctx.bandwidth) * _near(pre, threshold, ctx.bandwidth) * grad
        return None, to_threshold.sum_to_size(threshold.shape), None
