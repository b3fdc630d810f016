"""One dictionary in training: module, optimizer, dead-feature counters, inference threshold.

`step` does one optimizer step on one batch and returns device tensors. It does not wait for the
device but where the dead set is refreshed, every DEAD_REFRESH steps, where features are resampled,
and where outlier rows are dropped or codes are normalized decoupled, whose numbers are not known.
A batch whose loss or gradient is not finite changes nothing but the count of such batches. Of
several processes each is given its rows of a global batch, and all do the step of the whole one.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from train.config import TrainConfig
from train.dictionary.codes import Codes
from train.dictionary.crosscoder import Activations, Crosscoder
from train.dictionary.precision import tf32_products
from train.global_batch import GlobalBatch, slice_of
from train.graphed import LARGEST, Graphed, record_graph
from train.optimizer import adam, clipped_step, set_learning_rate
from train.ranks import ALONE, Ranks
from train.recipes.dead import DeadFeatures, dead_features, same_features
from train.recipes.loss import LossResult
from train.recipes.objective import Objective, Scheduled
from train.recipes.outliers import drop_outliers
from train.recipes.p_anneal import PAnneal, PSchedule
from train.recipes.resample import resample
from train.recipes.schedule import (
    active_features,
    is_resample,
    learning_rate,
    sparsity_warmup,
    threshold_beta,
)
from train.recipes.tied import tie_gradients, tie_rows
from train.recipes.unit_norm import normalize_rows, project_gradients
from train.recipes.units import in_units
from train.step_metrics import StepMetrics, pack, unpack

DEAD_REFRESH = 16
PRODUCT_DTYPES = {"bfloat16": torch.bfloat16}
RESAMPLE_WINDOW = 2  # a feature is resampled if it did not fire for resample_every / this steps


class Trainee:
    """Trains `dictionary` by the configuration of a planned dictionary of this name."""

    def __init__(
        self, name: str, dictionary: Crosscoder, config: TrainConfig, ranks: Ranks = ALONE
    ) -> None:
        self.ranks = ranks
        self.name = name
        self.dictionary = dictionary
        self.config = config = in_units(config, [h.width for h in dictionary.hookpoints])
        dictionary.product_dtype = PRODUCT_DTYPES.get(config.precision)
        self.objective = Objective(dictionary, config)
        device = dictionary.b_enc.device
        self.optimizer = adam(dictionary, learning_rate(0, config))
        features = dictionary.partition.features
        self.rows_since_fired = torch.zeros(features, dtype=torch.int64, device=device)
        self.dead = torch.zeros(features, dtype=torch.bool, device=device)
        self.bad_batches = torch.zeros((), dtype=torch.int64, device=device)
        self.annealed = _annealed(config, dictionary.b_enc)
        self._dead_features: DeadFeatures | None = None
        self._dead_changes = 0  # how often these have become others
        self._decoders = list(dictionary.W_dec.values())
        self._tied_rows = dictionary.tied_rows()
        short = self._steps_are_short()
        self._graphed = Graphed(self._short_work, record_graph) if short else None
        self._terms: list[str] = []  # names of the loss's, in a recorded step
        self._now = Scheduled(config.k)
        self._beta: float | None = None

    def step(self, activations: Activations, step: int) -> StepMetrics:
        """One optimizer step on raw activations."""
        with tf32_products(self.config.precision == "tf32"):
            return self._step(activations, step)

    def _step(self, activations: Activations, step: int) -> StepMetrics:
        if step % DEAD_REFRESH == 0:
            self.dead = self.rows_since_fired >= self.config.dead_after_rows
            self.refresh_dead_features()
        x = self.dictionary.scaled(activations)
        if self.config.outlier_norm is not None:
            x = drop_outliers(x, self.config.outlier_norm, self.ranks)
        whole = slice_of(self.ranks, len(x[0]), equal=self.config.outlier_norm is None)
        if is_resample(step, self.config):
            self._resample(x, step, whole)
        set_learning_rate(self.optimizer, learning_rate(step, self.config))
        self._now, self._beta = self.scheduled(step), threshold_beta(step, self.config)
        if self._graphed is not None:
            alike = (self._now, self._beta, self._dead_changes)
            return unpack(self._graphed(x, alike), self._terms)
        result, metrics = self._work(x, whole)
        if self.annealed is not None:
            self._record_sparsity(result, metrics, step, whole)
        return metrics

    def _work(self, x: list[Tensor], whole: GlobalBatch) -> tuple[LossResult, StepMetrics]:
        """What the device does for a step; it is not waited for."""
        result = self.loss(x, self._now, whole)
        self.optimizer.zero_grad(set_to_none=True)
        whole.weighted(result.total).backward()
        self.ranks.sum_gradients(self.dictionary.parameters())
        metrics = self._metrics(x, result, self._finish_gradients(), whole)
        good = metrics.loss.isfinite() & metrics.gradient_norm.isfinite()
        clipped_step(self.optimizer, metrics.gradient_norm, self.config.gradient_clip, good)
        self._restore_constraints(good)
        self._count(result.codes, good, whole.rows)
        self._update_threshold(result, good)
        return result, metrics

    def _steps_are_short(self) -> bool:
        """Whether launching a step's kernels may take longer than they do, on a device alone."""
        config, parameters = self.config, list(self.dictionary.parameters())
        return (
            config.cuda_graphs
            and parameters[0].is_cuda
            and sum(p.numel() for p in parameters) <= LARGEST
            and self.ranks.size == 1
            and config.outlier_norm is None  # a batch's number of rows would change
            and config.code_normalization != "decoupled"  # and so would that of entries
            and self.annealed is None  # what it records is another place each step
        )

    def _short_work(self, x: list[Tensor]) -> Tensor:
        """The same on one process, its metrics as one tensor."""
        _, metrics = self._work(x, slice_of(self.ranks, len(x[0])))
        self._terms = list(metrics.terms)
        return pack(metrics)

    def scheduled(self, step: int) -> Scheduled:
        """What the schedules say of this step; to be asked once per step."""
        k, warm = active_features(step, self.config), sparsity_warmup(step, self.config)
        if self.annealed is None:
            return Scheduled(k, warm * _weight(self.config))
        p = self.annealed.begin(step)
        return Scheduled(k, warm * self.annealed.weight, p)

    def loss(self, x: list[Tensor], now: Scheduled, whole: GlobalBatch | None = None) -> LossResult:
        """The loss on scaled inputs, which may be some rows of a `whole` batch."""
        return self.objective(self.dictionary, x, now, self._dead_features, whole)

    def refresh_dead_features(self) -> None:
        """Rebuilds AuxK's index lists from `dead`."""
        widths = [hookpoint.width for hookpoint in self.dictionary.hookpoints]
        auxk = self.config.auxk or sum(widths) // len(widths) // 2
        found = dead_features(self.dead, self.dictionary.partition, auxk)
        if not same_features(found, self._dead_features):
            self._dead_features = found
            self._dead_changes += bool(self.config.auxk_weight or self.config.ghost_grads)

    def _finish_gradients(self) -> Tensor:
        """Ties and projects gradients; their norm before it, by which they are to be clipped."""
        if self._tied_rows is not None:
            tie_gradients(self._decoders, self._tied_rows)
        norm = get_total_norm(p.grad for p in self.dictionary.parameters() if p.grad is not None)
        if self.config.unit_norm_decoder:
            project_gradients(self._decoders)
        return norm

    def _restore_constraints(self, good: Tensor | None = None) -> None:
        if self.config.unit_norm_decoder:
            normalize_rows(self._decoders, good)
        if self._tied_rows is not None:
            tie_rows(self._decoders, self._tied_rows)

    def _resample(self, x: list[Tensor], step: int, whole: GlobalBatch) -> None:
        """Re-initialises what has not fired for half of the time between resamplings.

        Not on a bad batch: the features wait for the next time.
        """
        config = self.config
        assert config.resample_every is not None
        rows = config.resample_every * config.batch_rows // RESAMPLE_WINDOW
        dead_F = self.rows_since_fired >= rows
        with torch.no_grad():
            now = Scheduled(active_features(step, config))
            residuals = self.objective(self.dictionary, x, now, whole=whole).residuals
        x, residuals = whole.all_rows(x), whole.all_rows(residuals)
        if not all(rows_BD.isfinite().all() for rows_BD in (*x, *residuals)):
            return
        chosen_F = resample(
            self.dictionary, self.optimizer, dead_F, x, residuals, config.seed, step
        )
        self._restore_constraints()
        self.rows_since_fired.masked_fill_(chosen_F, 0)
        self.dead &= ~chosen_F
        self.refresh_dead_features()

    @torch.no_grad()
    def _count(self, codes: Codes, good: Tensor, rows: int | None = None) -> None:
        """`rows`: those of all processes; None: the codes'."""
        fired_F = self.ranks.any(codes.fired() > 0)
        seen = codes.batch if rows is None else rows
        counted = (self.rows_since_fired + seen).masked_fill_(fired_F, 0)
        self.rows_since_fired.copy_(torch.where(good, counted, self.rows_since_fired))
        self.bad_batches += ~good

    @torch.no_grad()
    def _update_threshold(self, result: LossResult, good: Tensor) -> None:
        if result.smallest_score is None or self._beta is None:
            return
        threshold = self.dictionary.threshold
        updated = self._beta * threshold + (1 - self._beta) * result.smallest_score
        threshold.copy_(torch.where(good, updated, threshold))

    @torch.no_grad()
    def _record_sparsity(
        self, result: LossResult, metrics: StepMetrics, step: int, whole: GlobalBatch
    ) -> None:
        assert self.annealed is not None
        following = self.annealed.schedule.next_p(step)
        if following is not None:
            sums = self.objective.penalty(self.dictionary, result.penalised, following)
            self.annealed.record(step, metrics.terms["sparsity"], whole.mean(sums))

    @torch.no_grad()
    def _metrics(
        self, x: list[Tensor], result: LossResult, norm: Tensor, whole: GlobalBatch
    ) -> StepMetrics:
        active = (result.codes.values > 0).sum() / result.codes.batch
        errors = [e_BD.square().sum() for e_BD in result.residuals]
        loss, terms = result.total.detach(), {n: t.detach() for n, t in result.terms.items()}
        if not whole.alone:
            summed = [whole.summed(error) for error in errors]
            sent = whole.mean(torch.stack([loss, active, *terms.values(), *summed]))
            loss, active, *others = sent.unbind()
            terms, errors = dict(zip(terms, others, strict=False)), others[len(terms) :]
        variations = whole.variations(self.dictionary.written(x))
        fve = [1 - error / variation for error, variation in zip(errors, variations, strict=True)]
        return StepMetrics(loss, terms, torch.stack(fve), active, norm)


def _annealed(config: TrainConfig, like: Tensor) -> PAnneal | None:
    """The state of p-annealing, where the penalty is lp."""
    if config.sparsity != "lp":
        return None
    begin = config.p_anneal_start if config.p_anneal_start is not None else config.steps // 3
    schedule = PSchedule(config.p_start, config.p_end, begin, config.steps - 1, config.p_updates)
    return PAnneal(schedule, _weight(config), like.device, like.dtype)


def _weight(config: TrainConfig) -> float:
    assert config.sparsity_weight is not None
    return config.sparsity_weight
