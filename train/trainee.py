"""One dictionary in training: module, optimizer, dead-feature counters, inference threshold.

`step` does one optimizer step on one batch and returns device tensors; it never waits for the
device. The dead set is refreshed every DEAD_REFRESH steps, which is where the device is waited
for.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from train.config import RecipeName, TrainConfig
from train.dictionary.codes import SparseCodes
from train.dictionary.crosscoder import Activations, Crosscoder
from train.dictionary.selection import batch_topk
from train.recipes.loss import DeadFeatures, LossResult, auxk_loss, reconstruction_loss
from train.recipes.schedule import active_features, learning_rate, threshold_start

DEAD_REFRESH = 16


@dataclass(frozen=True)
class StepMetrics:
    """Device scalars of one step; fve per hookpoint is that of the training batch."""

    loss: Tensor
    terms: dict[str, Tensor]
    fve: Tensor
    l0: Tensor


class Trainee:
    """Trains `dictionary` by a recipe's configuration."""

    def __init__(self, name: RecipeName, dictionary: Crosscoder, config: TrainConfig) -> None:
        self.name = name
        self.dictionary = dictionary
        self.config = config
        device = dictionary.b_enc.device
        self.optimizer = torch.optim.Adam(
            dictionary.parameters(), lr=learning_rate(0, config), fused=True
        )
        features = dictionary.partition.features
        self.rows_since_fired = torch.zeros(features, dtype=torch.int64, device=device)
        self.dead = torch.zeros(features, dtype=torch.bool, device=device)
        self._dead_features: DeadFeatures | None = None

    def step(self, activations: Activations, step: int) -> StepMetrics:
        """One optimizer step on raw activations."""
        if step % DEAD_REFRESH == 0:
            self.dead = self.rows_since_fired >= self.config.dead_after_rows
            self.refresh_dead_features()
        x = self.dictionary.scaled(activations)
        result = self.loss(x, active_features(step, self.config))
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step, self.config)
        self.optimizer.zero_grad(set_to_none=True)
        result.total.backward()
        torch.nn.utils.clip_grad_norm_(
            self.dictionary.parameters(), self.config.gradient_clip, foreach=True
        )
        self.optimizer.step()
        self._count_fired(result.codes)
        if step >= threshold_start(self.config):
            self._update_threshold(
                result.smallest_score, first=step == threshold_start(self.config)
            )
        return self._metrics(x, result)

    def loss(self, x: list[Tensor], k: int) -> LossResult:
        """The recipe's loss on scaled inputs."""
        dictionary = self.dictionary
        pre_BF = dictionary.preactivations(x)
        pattern, smallest = batch_topk(pre_BF, dictionary.code_scale(), k)
        codes = dictionary.codes_at(x, pre_BF, pattern)
        reconstructions = dictionary.decode_scaled(codes)
        residuals = [x_BD - y_BD for x_BD, y_BD in zip(x, reconstructions, strict=True)]
        terms = {"reconstruction": reconstruction_loss(self.config.loss, residuals)}
        total = terms["reconstruction"]
        if self._dead_features is not None and self.config.auxk_weight > 0:
            terms["auxk"] = auxk_loss(dictionary, x, pre_BF, residuals, self._dead_features)
            total = total + self.config.auxk_weight * terms["auxk"]
        return LossResult(total, terms, codes, residuals, smallest)

    def refresh_dead_features(self) -> None:
        """Rebuilds AuxK's index lists from `dead`."""
        partition = self.dictionary.partition
        groups = []
        for group in partition.groups:
            here = partition.slices[group.name]
            members = self.dead[here].nonzero().squeeze(1) + here.start
            if len(members):
                groups.append((members, self._auxk_count(group.size)))
        self._dead_features = DeadFeatures(groups) if groups else None

    def _auxk_count(self, size: int) -> int:
        """The group's share of AuxK's features, at least one."""
        widths = [hookpoint.width for hookpoint in self.dictionary.hookpoints]
        total = self.config.auxk or sum(widths) // len(widths) // 2
        return max(1, round(total * size / self.dictionary.partition.features))

    @torch.no_grad()
    def _count_fired(self, codes: SparseCodes) -> None:
        fired = torch.zeros_like(self.rows_since_fired)
        fired.index_add_(0, codes.pattern.columns, (codes.values > 0).to(fired.dtype))
        self.rows_since_fired += codes.pattern.batch
        self.rows_since_fired.masked_fill_(fired > 0, 0)

    @torch.no_grad()
    def _update_threshold(self, smallest: Tensor, first: bool) -> None:
        beta = 0.0 if first else self.config.threshold_beta
        self.dictionary.threshold.mul_(beta).add_(smallest, alpha=1 - beta)

    @torch.no_grad()
    def _metrics(self, x: list[Tensor], result: LossResult) -> StepMetrics:
        fve = [
            1 - e_BD.square().sum() / (x_BD - x_BD.mean(dim=0)).square().sum()
            for x_BD, e_BD in zip(x, result.residuals, strict=True)
        ]
        active = (result.codes.values > 0).sum() / result.codes.pattern.batch
        terms = {name: term.detach() for name, term in result.terms.items()}
        return StepMetrics(result.total.detach(), terms, torch.stack(fve), active)
