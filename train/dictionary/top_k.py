"""Activations that keep a number of scores: of every row, or of a batch."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from train.dictionary.activated import Plain, Selected, Shapes, picked
from train.dictionary.codes import Pattern, SparseCodes
from train.dictionary.partition import Partition
from train.dictionary.preactivations import Preactivations
from train.dictionary.selection import above_threshold, batch_topk, batch_topk_each, topk_of_groups
from train.dictionary_config import NormalizationName
from train.global_batch import GlobalBatch

if TYPE_CHECKING:
    from train.dictionary.crosscoder import Crosscoder


@dataclass(frozen=True)
class TopK(Plain):
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
            codes = picked(pre_BF, on.any(dim=0))
            on_HN = on.view(len(scale), -1)[:, codes.pattern.flat]
            return SparseCodes(codes.pattern, codes.values, on_HN)
        if self.group_shares is not None:
            sizes = torch.tensor([group.size for group in dictionary.partition.groups])
            threshold = threshold.repeat_interleave(sizes.to(threshold.device))
        pattern = above_threshold(pre_BF, scale, threshold)
        return SparseCodes(pattern, pre_BF.view(-1)[pattern.flat])


def _shared_out(count: int, shares: tuple[float, ...]) -> list[int]:
    """Whole numbers by these shares (summing to 1), whose sum is `count`."""
    ends = [round(count * end) for end in itertools.accumulate(shares)]
    return [stop - start for start, stop in itertools.pairwise([0, *ends])]
