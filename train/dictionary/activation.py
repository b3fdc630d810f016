"""Activation functions: which pre-activations become codes, in training and at inference.

An activation is a plain value; what it learns (thresholds, gates) are parameters and buffers of the
dictionary, which it names. `training` gives codes that are differentiable where the method is;
`inference` never lets one row's codes depend on another's. `whole` is the global batch that rows in
training are some of; None: they are all of it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from train.dictionary.codes import Codes, DenseCodes, Pattern, SparseCodes
from train.dictionary.partition import Partition
from train.dictionary.preactivations import Preactivations
from train.dictionary.selection import above_threshold, batch_topk, batch_topk_each, topk_of_groups
from train.dictionary.straight_through import jump_relu
from train.dictionary_config import NormalizationName
from train.global_batch import GlobalBatch

if TYPE_CHECKING:
    from train.dictionary.crosscoder import Crosscoder

DENSE_SHARE = 1 / 16  # of all entries, above which dense products are cheaper than sparse ones
Shapes = Iterator[tuple[str, tuple[int, ...]]]


@dataclass(frozen=True)
class Selected:
    """Codes of a batch in training.

    smallest_score: the smallest score that a batch-wide selection kept, in the shape of the
    inference threshold; gate: codes of the gate's own path (gated).
    """

    codes: Codes
    smallest_score: Tensor | None = None
    gate: Codes | None = None


class _Plain:
    """What an activation without parameters of its own says of them."""

    def parameters(self, partition: Partition, hookpoints: int, kind: NormalizationName) -> Shapes:
        """Names and shapes of what the dictionary learns for it."""
        yield from ()

    def buffers(self, partition: Partition, hookpoints: int, kind: NormalizationName) -> Shapes:
        """Names and shapes of what the dictionary keeps for it."""
        yield from ()


@dataclass(frozen=True)
class ReLU(_Plain):
    """Every positive pre-activation."""

    kind: ClassVar[str] = "relu"

    def training(
        self,
        dictionary: Crosscoder,
        pre: Preactivations,
        k: int,
        whole: GlobalBatch | None = None,
    ) -> Selected:
        """relu(pre); `k` plays no part."""
        pattern = positive_pattern(pre.dense_BF)
        if pattern is None:
            return Selected(DenseCodes(pre.differentiable().relu(), pre.product_dtype))
        return Selected(SparseCodes(pattern, pre.at(pattern)))

    def inference(self, dictionary: Crosscoder, pre_BF: Tensor) -> SparseCodes:
        """The same."""
        return _picked(pre_BF, pre_BF > 0)


@dataclass(frozen=True)
class TopK(_Plain):
    """Of every row the k largest scores that are positive (arXiv 2406.04093)."""

    k: int
    kind: ClassVar[str] = "topk"

    def training(
        self,
        dictionary: Crosscoder,
        pre: Preactivations,
        k: int,
        whole: GlobalBatch | None = None,
    ) -> Selected:
        """The scheduled `k` in place of its own."""
        pattern = self._pattern(dictionary, pre.dense_BF, k)
        return Selected(SparseCodes(pattern, pre.at(pattern).relu()))

    def inference(self, dictionary: Crosscoder, pre_BF: Tensor) -> SparseCodes:
        """Only positive entries."""
        pattern = self._pattern(dictionary, pre_BF, self.k)
        values = pre_BF.view(-1)[pattern.flat]
        kept = values > 0
        return SparseCodes(
            Pattern(pattern.flat[kept], pattern.batch, pattern.features), values[kept]
        )

    @torch.no_grad()
    def _pattern(self, dictionary: Crosscoder, pre_BF: Tensor, k: int) -> Pattern:
        scores_BF = pre_BF.relu() * dictionary.code_scale()
        everything = torch.arange(pre_BF.shape[1], device=pre_BF.device)
        return topk_of_groups(scores_BF, [(everything, k)])


@dataclass(frozen=True)
class BatchTopK:
    """The k * batch largest scores of a batch (arXiv 2412.06410), a learned threshold at inference.

    group_shares: share of k that each partition group gets for itself; None: all compete.
    """

    group_shares: tuple[float, ...] | None = None
    kind: ClassVar[str] = "batch_topk"

    def parameters(self, partition: Partition, hookpoints: int, kind: NormalizationName) -> Shapes:
        """None."""
        yield from ()

    def buffers(self, partition: Partition, hookpoints: int, kind: NormalizationName) -> Shapes:
        """One threshold; one per hookpoint (decoupled) or per group (group_shares)."""
        if kind == "decoupled":
            yield "threshold", (hookpoints,)
        elif self.group_shares is not None:
            yield "threshold", (len(partition.groups),)
        else:
            yield "threshold", ()

    @torch.no_grad()
    def _select(
        self, dictionary: Crosscoder, pre_BF: Tensor, k: int, whole: GlobalBatch | None
    ) -> tuple[Pattern, Tensor, Tensor | None]:
        scale = dictionary.code_scale()
        rows = len(pre_BF) if whole is None else whole.rows
        if dictionary.normalization == "decoupled":
            return batch_topk_each(pre_BF, scale, k, dictionary.outputs, whole)
        if self.group_shares is None:
            return *batch_topk(pre_BF, scale, k, whole=whole), None
        patterns, smallest = [], []
        slices = dictionary.partition.slices.values()
        for count, here in zip(_shared_out(k * rows, self.group_shares), slices, strict=True):
            part, least = batch_topk(pre_BF[:, here], scale[here], k, count, whole)
            patterns.append(part.rows * pre_BF.shape[1] + part.columns + here.start)
            smallest.append(least)
        flat = torch.cat(patterns).sort().values
        return Pattern(flat, *pre_BF.shape), torch.stack(smallest), None

    def training(
        self,
        dictionary: Crosscoder,
        pre: Preactivations,
        k: int,
        whole: GlobalBatch | None = None,
    ) -> Selected:
        """relu(pre) where the score is among the largest."""
        pattern, smallest, on_HN = self._select(dictionary, pre.dense_BF, k, whole)
        return Selected(SparseCodes(pattern, pre.at(pattern).relu(), on_HN), smallest)

    def inference(self, dictionary: Crosscoder, pre_BF: Tensor) -> SparseCodes:
        """relu(pre) where the score is above the threshold."""
        scale, threshold = dictionary.code_scale(), dictionary.threshold
        if dictionary.normalization == "decoupled":
            on = torch.stack(
                [
                    (pre_BF.relu() * scale[n] > threshold[n]) & (n in dictionary.outputs)
                    for n in range(len(scale))
                ]
            )
            codes = _picked(pre_BF, on.any(dim=0))
            on_HN = on.view(len(scale), -1)[:, codes.pattern.flat]
            return SparseCodes(codes.pattern, codes.values, on_HN)
        if self.group_shares is not None:
            sizes = torch.tensor([group.size for group in dictionary.partition.groups])
            threshold = threshold.repeat_interleave(sizes.to(threshold.device))
        pattern = above_threshold(pre_BF, scale, threshold)
        return SparseCodes(pattern, pre_BF.view(-1)[pattern.flat])


@dataclass(frozen=True)
class JumpReLU(_Plain):
    """relu(pre) where it is above the feature's own learned threshold (arXiv 2407.14435).

    The threshold's gradient is a straight-through estimate from positive pre-activations within
    half a bandwidth of it.
    """

    bandwidth: float = 0.001
    kind: ClassVar[str] = "jump_relu"

    def parameters(self, partition: Partition, hookpoints: int, kind: NormalizationName) -> Shapes:
        """A threshold per feature."""
        yield "threshold", (partition.features,)

    def training(
        self,
        dictionary: Crosscoder,
        pre: Preactivations,
        k: int,
        whole: GlobalBatch | None = None,
    ) -> Selected:
        """Entries just below their threshold are part of the pattern, with value 0."""
        threshold_F = dictionary.threshold
        floor_F = (threshold_F.detach() - self.bandwidth / 2).clamp(min=0)
        pattern = positive_pattern(pre.dense_BF, floor_F)
        if pattern is None:
            values = jump_relu(pre.differentiable(), threshold_F[None], self.bandwidth)
            return Selected(DenseCodes(values, pre.product_dtype))
        at_N = threshold_F[pattern.columns]
        return Selected(SparseCodes(pattern, jump_relu(pre.at(pattern), at_N, self.bandwidth)))

    def inference(self, dictionary: Crosscoder, pre_BF: Tensor) -> SparseCodes:
        """The same without entries of value 0."""
        return _picked(pre_BF, (pre_BF > dictionary.threshold) & (pre_BF > 0))


@dataclass(frozen=True)
class Gated(_Plain):
    """The gate says which features are on, a second path how strongly (arXiv 2404.16014).

    With pi = pre, b_enc being the gate's bias:
    f = 1[pi > 0] relu(exp(r_mag) (pi - b_enc) + mag_bias).
    """

    kind: ClassVar[str] = "gated"

    def parameters(self, partition: Partition, hookpoints: int, kind: NormalizationName) -> Shapes:
        """Per feature: logarithm of the magnitude path's gain, and its bias."""
        yield "r_mag", (partition.features,)
        yield "mag_bias", (partition.features,)

    def training(
        self,
        dictionary: Crosscoder,
        pre: Preactivations,
        k: int,
        whole: GlobalBatch | None = None,
    ) -> Selected:
        """Codes, and relu(pi) as the gate's own."""
        pattern = positive_pattern(pre.dense_BF)
        if pattern is None:
            pi_BF = pre.differentiable()
            strength = self._strength(dictionary, pi_BF, slice(None))
            codes = DenseCodes(strength * (pi_BF > 0), pre.product_dtype)
            return Selected(codes, gate=DenseCodes(pi_BF.relu(), pre.product_dtype))
        pi_N = pre.at(pattern)
        values = self._strength(dictionary, pi_N, pattern.columns)
        return Selected(SparseCodes(pattern, values), gate=SparseCodes(pattern, pi_N))

    def _strength(self, dictionary: Crosscoder, pi: Tensor, columns: Tensor | slice) -> Tensor:
        gain = dictionary.r_mag.exp()[columns]
        return (gain * (pi - dictionary.b_enc[columns]) + dictionary.mag_bias[columns]).relu()

    def inference(self, dictionary: Crosscoder, pre_BF: Tensor) -> SparseCodes:
        """Entries that the gate lets through and that are not zero."""
        strength_BF = self._strength(dictionary, pre_BF, slice(None))
        return _picked(strength_BF, (pre_BF > 0) & (strength_BF > 0))


Activation = ReLU | TopK | BatchTopK | JumpReLU | Gated
KINDS: dict[str, type[Activation]] = {
    kind.kind: kind for kind in (ReLU, TopK, BatchTopK, JumpReLU, Gated)
}


def _shared_out(count: int, shares: tuple[float, ...]) -> list[int]:
    """Whole numbers by these shares (summing to 1), whose sum is `count`."""
    ends = [round(count * end) for end in itertools.accumulate(shares)]
    return [stop - start for start, stop in itertools.pairwise([0, *ends])]


def positive_pattern(
    pre_BF: Float[Tensor, "batch features"], floor_F: Float[Tensor, " features"] | float = 0.0
) -> Pattern | None:
    """Entries above `floor_F`; None if they are so many that dense products are cheaper.

    On CUDA always None: counting them would wait for the device.
    """
    if pre_BF.device.type != "cpu":
        return None
    above = pre_BF > floor_F
    if int(above.sum()) > DENSE_SHARE * pre_BF.numel():
        return None
    return Pattern(above.view(-1).nonzero().squeeze(1), *pre_BF.shape)


def describe_activation(activation: Activation) -> dict[str, Any]:
    """An activation as JSON values."""
    return {"kind": activation.kind, **vars(activation)}


def build_activation(description: dict[str, Any]) -> Activation:
    """The activation of a description. Raises KeyError, TypeError or ValueError."""
    fields = dict(description)
    kind = fields.pop("kind")
    if isinstance(fields.get("group_shares"), list):
        fields["group_shares"] = tuple(fields["group_shares"])
    return KINDS[kind](**fields)


def _picked(values_BF: Tensor, kept_BF: Tensor) -> SparseCodes:
    flat = kept_BF.reshape(-1).nonzero().squeeze(1)
    return SparseCodes(Pattern(flat, *values_BF.shape), values_BF.reshape(-1)[flat])
