"""The loss of a dictionary on one batch, put together as its configuration says."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from train.config import TrainConfig
from train.dictionary.activated import Selected
from train.dictionary.codes import Codes, Pattern, SparseCodes
from train.dictionary.crosscoder import Crosscoder
from train.dictionary.gates import JumpReLU
from train.dictionary.preactivations import Preactivations
from train.global_batch import GlobalBatch
from train.recipes.dead import DeadFeatures
from train.recipes.ghost import ghost_loss
from train.recipes.loss import (
    LossResult,
    auxk_loss,
    gate_loss,
    reconstruction_loss,
    reconstruction_parts,
)
from train.recipes.matryoshka import feature_levels, prefix_reconstructions, stack_levels
from train.recipes.penalty import entropy, l0_ste, l0_target_loss, l1, lp


@dataclass(frozen=True)
class Scheduled:
    """What schedules say of this step: k, the penalty's weight, and its p."""

    k: int
    sparsity_weight: Tensor | float = 0.0
    p: float = 1.0


class Objective:
    """Computes the loss; holds what follows from the configuration once and for all."""

    def __init__(self, dictionary: Crosscoder, config: TrainConfig) -> None:
        self.config = config
        outputs = [dictionary.hookpoints[n] for n in dictionary.outputs]
        weights = [config.model_weights.get(h.model, 1.0) for h in outputs]
        self.weights = weights if set(weights) != {1.0} else None
        shares = config.matryoshka or [1.0]
        self.levels = len(shares)
        self.level_F = feature_levels(dictionary.partition, shares).to(dictionary.b_enc.device)

    def __call__(
        self,
        dictionary: Crosscoder,
        x: list[Tensor],
        now: Scheduled,
        dead: DeadFeatures | None = None,
        whole: GlobalBatch | None = None,
    ) -> LossResult:
        """`x`: scaled inputs in hookpoint order; `dead`: for AuxK and ghost gradients.

        whole: the global batch that these rows are some of. The loss is then such that its mean
        over processes, by their shares of the rows, is that of the global batch.
        """
        config = self.config
        pre = dictionary.preactivations(x)
        selected = dictionary.activation.training(dictionary, pre, now.k, whole)
        nested = self._residuals(dictionary, dictionary.written(x), selected.codes)
        residuals = nested[-1]
        parts = [reconstruction_loss(config.loss, e, self.weights) for e in nested]
        terms = {"reconstruction": torch.stack(parts).mean()}
        total = terms["reconstruction"]
        if config.sparsity not in (None, "none"):
            terms["sparsity"] = self._sparsity(dictionary, pre, selected, now, whole)
            total = total + now.sparsity_weight * terms["sparsity"]
        if selected.gate is not None:
            terms["gate"] = gate_loss(config.loss, dictionary, x, selected.gate, self.weights)
            total = total + terms["gate"]
        if dead is not None and config.auxk_weight:
            terms["auxk"] = auxk_loss(dictionary, pre, residuals, dead, whole)
            total = total + config.auxk_weight * terms["auxk"]
        if dead is not None and config.ghost_grads:
            terms["ghost"] = self._ghost(dictionary, pre, residuals, dead.features, whole)
            total = total + terms["ghost"]
        return LossResult(
            total,
            terms,
            selected.codes,
            selected.gate or selected.codes,
            residuals,
            selected.smallest_score,
        )

    def penalty(self, dictionary: Crosscoder, codes: Codes, p: float) -> Tensor:
        """The L_p^p penalty (p 1: L1), weighted by the code normalization."""
        unweighted = self.config.code_normalization == "none"
        weight_F = None if unweighted else dictionary.code_scale()
        return l1(codes, weight_F) if p == 1 else lp(codes, p, weight_F)

    def _residuals(
        self, dictionary: Crosscoder, x: list[Tensor], codes: Codes
    ) -> list[list[Tensor]]:
        """Of every nested dictionary, the whole one last, the residuals of writing hookpoints."""
        if self.levels == 1:
            found = [dictionary.decode_scaled(codes)]
        else:
            stacked = stack_levels(codes, self.level_F, self.levels)
            decoded = dictionary.decode_scaled(stacked, bias=False)
            b_dec = [dictionary.b_dec[str(n)] for n in dictionary.outputs]
            found = prefix_reconstructions(decoded, b_dec, self.levels)
        return [
            [x_BD - x_hat_BD for x_BD, x_hat_BD in zip(x, x_hat, strict=True)] for x_hat in found
        ]

    def _sparsity(
        self,
        dictionary: Crosscoder,
        pre: Preactivations,
        selected: Selected,
        now: Scheduled,
        whole: GlobalBatch | None,
    ) -> Tensor:
        codes = selected.gate or selected.codes
        if self.config.sparsity == "entropy":
            return entropy(codes)
        if self.config.sparsity == "l0":
            assert self.config.target_l0 is not None
            l0 = _l0(dictionary, pre, codes)
            return l0_target_loss(whole.value_of_all(l0) if whole else l0, self.config.target_l0)
        return self.penalty(dictionary, codes, now.p)

    def _ghost(
        self,
        dictionary: Crosscoder,
        pre: Preactivations,
        residuals: list[Tensor],
        dead_K: Tensor,
        whole: GlobalBatch | None,
    ) -> Tensor:
        batch, features = pre.dense_BF.shape
        rows_B = torch.arange(batch, device=dead_K.device)
        pattern = Pattern((rows_B[:, None] * features + dead_K).view(-1), batch, features)
        directions = []
        for n in dictionary.outputs:
            local_K = dictionary.visibility(n).local_F[dead_K]
            rows_KD = dictionary.W_dec[str(n)][local_K.clamp(min=0)]
            directions.append(rows_KD * (local_K >= 0)[:, None])
        parts = reconstruction_parts(self.config.loss, residuals, self.weights)
        return ghost_loss(
            pre.at(pattern).view(batch, len(dead_K)), directions, residuals, parts, whole
        )


def _l0(dictionary: Crosscoder, pre: Preactivations, codes: Codes) -> Tensor:
    """Mean active features per row, with a straight-through gradient to JumpReLU's thresholds."""
    assert isinstance(dictionary.activation, JumpReLU)
    values = pre.dense_BF
    if isinstance(codes, SparseCodes):
        values = values.view(-1)[codes.pattern.flat]
    bandwidth = dictionary.activation.bandwidth
    return l0_ste(values, codes.spread(dictionary.threshold), bandwidth, codes.batch)
