"""Activations in which every entry is on or off by itself: ReLU, JumpReLU, gated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from train.dictionary.activated import Plain, Selected, Shapes, picked, positive_pattern
from train.dictionary.codes import DenseCodes, SparseCodes
from train.dictionary.partition import Partition
from train.dictionary.preactivations import Preactivations
from train.dictionary.straight_through import jump_relu
from train.dictionary_config import NormalizationName
from train.global_batch import GlobalBatch

if TYPE_CHECKING:
    from train.dictionary.crosscoder import Crosscoder


@dataclass(frozen=True)
class ReLU(Plain):
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
        return picked(pre_BF, pre_BF > 0)


@dataclass(frozen=True)
class JumpReLU(Plain):
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
        return picked(pre_BF, (pre_BF > dictionary.threshold) & (pre_BF > 0))


@dataclass(frozen=True)
class Gated(Plain):
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
        return picked(strength_BF, (pre_BF > 0) & (strength_BF > 0))
