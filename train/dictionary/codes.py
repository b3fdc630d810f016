"""Sparse codes: which features are active on which rows, and how strongly.

Encoder and decoder touch only active entries in the backward pass, and the decoder in the forward
pass too: cost N * D per hookpoint in place of B * F * D. The one dense product left is the
encoder's forward one. Derivatives are written out by hand because autograd would go through dense
(B, F) tensors; the tests compare them with a dense reference in float64.

B batch rows, F features, V features visible to a hookpoint, D width, N entries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from train.dictionary.ordering import stable_order
from train.dictionary.precision import dense_product
from train.dictionary.sparse_products import (
    decode_gradients,
    gather_sum,
    products_at,
    runs_kernels,
)


@dataclass(frozen=True)
class Pattern:
    """Positions of the entries in a (batch, features) matrix, sorted row by row."""

    flat: Int[Tensor, " entries"]
    batch: int
    features: int

    @cached_property
    def rows(self) -> Int[Tensor, " entries"]:
        """Batch row of each entry."""
        return self.flat // self.features

    @cached_property
    def columns(self) -> Int[Tensor, " entries"]:
        """Feature of each entry."""
        return self.flat % self.features

    @cached_property
    def row_starts(self) -> Int[Tensor, " batch_plus_1"]:
        """Where each row's entries begin."""
        edges = torch.arange(self.batch + 1, device=self.flat.device) * self.features
        return torch.searchsorted(self.flat, edges)

    @cached_property
    def by_feature(self) -> Int[Tensor, " entries"]:
        """Permutation that sorts the entries by feature, then by row."""
        return stable_order(self.columns, self.features)

    @cached_property
    def feature_starts(self) -> Int[Tensor, " features_plus_1"]:
        """Where each feature's entries begin after that permutation."""
        edges = torch.arange(self.features + 1, device=self.flat.device)
        return torch.searchsorted(self.columns[self.by_feature], edges)

    @cached_property
    def rows_by_feature(self) -> Int[Tensor, " entries"]:
        """Batch row of each entry after that permutation."""
        return self.rows[self.by_feature]

    def transposed_product(
        self,
        values: Float[Tensor, " entries"],
        dense: Float[Tensor, "batch width"],
        runs: Sequence[slice] | None = None,
    ) -> Float[Tensor, "rows width"]:
        """C^T @ dense, where C holds `values` at this pattern; only these runs of features."""
        ordered = values[self.by_feature]
        runs = [slice(0, self.features)] if runs is None else runs
        parts = [
            gather_sum(
                self.feature_starts[run.start : run.stop + 1], self.rows_by_feature, ordered, dense
            )
            for run in runs
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def decode_gradients(
        self,
        values: Float[Tensor, " entries"],
        grad: Float[Tensor, "batch width"],
        W_dec_VD: Float[Tensor, "visible width"],
        runs: Sequence[slice],
    ) -> tuple[Float[Tensor, " entries"], Float[Tensor, "visible width"]]:
        """Gradients of C @ W_dec to `values` and W_dec, where the product's is `grad`."""
        found, first = [], 0
        for run in runs:
            starts = self.feature_starts[run.start : run.stop + 1]
            weights = W_dec_VD[first : first + len(starts) - 1]
            first += len(weights)
            found.append(
                decode_gradients(
                    starts, self.rows_by_feature, self.by_feature, values, grad, weights
                )
            )
        if len(found) == 1:
            return found[0]
        grad_values, grad_weights = zip(*found, strict=True)
        return torch.stack(grad_values).sum(dim=0), torch.cat(grad_weights)


@dataclass(frozen=True)
class SparseCodes:
    """Codes of a batch: `values` at the positions of `pattern`; everything else is zero.

    on_HN: which entries are on for which hookpoint, where that differs (code normalization
    decoupled); None: all for all.
    """

    pattern: Pattern
    values: Float[Tensor, " entries"]
    on_HN: Bool[Tensor, "hookpoints entries"] | None = None

    @property
    def batch(self) -> int:
        """Rows."""
        return self.pattern.batch

    def dense(self) -> Float[Tensor, "batch features"]:
        """The same codes as a full matrix."""
        full = self.values.new_zeros(self.pattern.batch * self.pattern.features)
        full = full.index_put((self.pattern.flat,), self.values)
        return full.view(self.pattern.batch, self.pattern.features)

    def spread(self, weight_F: Float[Tensor, " features"]) -> Float[Tensor, " entries"]:
        """The weight of each value's feature."""
        return weight_F[self.pattern.columns]

    def fired(self) -> Int[Tensor, " features"]:
        """In how many rows each feature is active."""
        counts = torch.zeros(self.pattern.features, dtype=torch.int64, device=self.values.device)
        return counts.index_add_(0, self.pattern.columns, (self.values > 0).to(counts.dtype))

    def decode(
        self, W_dec_VD: Float[Tensor, "visible width"], visibility: Visibility, number: int
    ) -> Float[Tensor, "batch width"]:
        """Sum of active directions at hookpoint `number`, differentiable in codes and weights."""
        values = self.values if self.on_HN is None else self.values * self.on_HN[number]
        return _Decode.apply(values, self.pattern, W_dec_VD, visibility)


@dataclass(frozen=True)
class DenseCodes:
    """The same as a full matrix: cheaper where a large share of all features is active."""

    values: Float[Tensor, "batch features"]
    product_dtype: torch.dtype | None = None

    @property
    def batch(self) -> int:
        """Rows."""
        return len(self.values)

    def dense(self) -> Float[Tensor, "batch features"]:
        """Itself."""
        return self.values

    def spread(self, weight_F: Float[Tensor, " features"]) -> Float[Tensor, "1 features"]:
        """The weight of each value's feature, to be broadcast."""
        return weight_F[None]

    def fired(self) -> Int[Tensor, " features"]:
        """In how many rows each feature is active."""
        return (self.values > 0).sum(dim=0)

    def decode(
        self, W_dec_VD: Float[Tensor, "visible width"], visibility: Visibility, number: int
    ) -> Float[Tensor, "batch width"]:
        """Sum of active directions; `number` plays no part."""
        return dense_product(
            take_columns(self.values, visibility.runs), W_dec_VD, self.product_dtype
        )


Codes = SparseCodes | DenseCodes


class _SelectPreactivations(torch.autograd.Function):
    """Takes entries out of pre-activations; the gradient goes to encoder weights and bias.

    Arguments behind `pattern`: the encoder bias, then for each hookpoint its input (B, D), its
    weights (V, D) and visibility. Inputs get no gradient.
    """

    @staticmethod
    def forward(ctx: Any, pre_BF: Tensor, pattern: Pattern, b_enc_F: Tensor, *parts: Any) -> Tensor:
        ctx.pattern = pattern
        ctx.inputs, ctx.visibilities = parts[0::3], parts[2::3]
        return pre_BF.view(-1)[pattern.flat]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_N: Tensor) -> tuple[Tensor | None, ...]:
        pattern: Pattern = ctx.pattern
        # Not index_add_, whose order of additions on CUDA differs from run to run.
        ones_B1 = grad_N.new_ones(pattern.batch, 1)
        grad_bias = pattern.transposed_product(grad_N, ones_B1).squeeze(1)
        grads: list[Tensor | None] = []
        for x_BD, visibility in zip(ctx.inputs, ctx.visibilities, strict=True):
            grads += [None, pattern.transposed_product(grad_N, x_BD, visibility.runs), None]
        return (None, None, grad_bias, *grads)


class _Decode(torch.autograd.Function):
    """C @ W_dec for one hookpoint, where codes of features it does not see count as zero."""

    @staticmethod
    def forward(
        ctx: Any, values_N: Tensor, pattern: Pattern, W_dec_VD: Tensor, visibility: Visibility
    ) -> Tensor:
        local_N = visibility.local_F[pattern.columns]
        ctx.save_for_backward(values_N, W_dec_VD, local_N)
        ctx.pattern, ctx.visibility = pattern, visibility
        return gather_sum(pattern.row_starts, local_N, values_N, W_dec_VD)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BD: Tensor) -> tuple[Tensor | None, ...]:
        values_N, W_dec_VD, local_N = ctx.saved_tensors
        pattern: Pattern = ctx.pattern
        if runs_kernels(grad_BD):
            grad_N, grad_W_VD = pattern.decode_gradients(
                values_N, grad_BD, W_dec_VD, ctx.visibility.runs
            )
            return grad_N, None, grad_W_VD, None
        grad_N = products_at(pattern.row_starts, local_N, grad_BD, W_dec_VD)
        grad_W_VD = pattern.transposed_product(values_N, grad_BD, ctx.visibility.runs)
        return grad_N, None, grad_W_VD, None


@dataclass(frozen=True)
class Visibility:
    """Which features a hookpoint sees: `runs` of neighbours, in order, and as `features_V`.

    local_F: the features' places in the hookpoint's weights; -1 for those it does not see.
    """

    runs: tuple[slice, ...]
    features_V: Int[Tensor, " visible"]
    local_F: Int[Tensor, " features"]


def select_preactivations(
    pre_BF: Float[Tensor, "batch features"],
    pattern: Pattern,
    b_enc_F: Float[Tensor, " features"],
    hookpoints: list[tuple[Tensor, Tensor, Visibility]],
) -> Float[Tensor, " entries"]:
    """`pre_BF` at `pattern`, differentiable in bias and weights.

    `hookpoints` holds input (B, D), encoder weights (V, D) and visibility of each.
    """
    flat = [part for hookpoint in hookpoints for part in hookpoint]
    return _SelectPreactivations.apply(pre_BF, pattern, b_enc_F, *flat)


def take_columns(full_BF: Tensor, runs: Sequence[slice]) -> Tensor:
    """Columns of a (batch, features) tensor that a hookpoint sees; a view where it is one run."""
    parts = [full_BF[:, run] for run in runs]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
