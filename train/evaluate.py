"""How well a dictionary reconstructs rows, in inference mode, in one pass over them.

What each group of the partition does for it is measured by doing without the group: its codes are
set to zero and the rest is decoded again. Evaluating changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import torch

from store.loader import Batch
from train.dictionary.codes import SparseCodes
from train.dictionary.crosscoder import Activations, Crosscoder
from train.variance import VarianceExplained as VarianceExplained


@dataclass(frozen=True)
class Evaluation:
    """What a dictionary does on `rows` rows; None where there are none, or no variance.

    fve: per hookpoint that is reconstructed, of its residual where the dictionary is of these; l0:
    mean active features per row; loss: mean over rows of the squared error in scaled units, summed
    over hookpoints; never_fired: share of the features that no row activated; l0_share: per group,
    its share of the active features; fve_share: per group and hookpoint, how much less FVE there is
    when the group's codes are zero; scale: what a hookpoint is multiplied by; partition_integrity:
    the largest weight that the partition forbids, 0 because such weights do not exist here (an
    import verifies it).
    """

    fve: dict[str, float | None]
    l0: float | None
    rows: int
    loss: float | None = None
    never_fired: float | None = None
    l0_share: dict[str, float | None] = field(default_factory=dict)
    fve_share: dict[str, dict[str, float | None]] = field(default_factory=dict)
    scale: dict[str, float] = field(default_factory=dict)
    partition_integrity: float = 0.0


def evaluate(dictionary: Crosscoder, batches: Iterable[Batch]) -> Evaluation:
    """Evaluates a dictionary on raw activations. Raises DictionaryError where one is not finite."""
    return _Sums(dictionary).over(batches)


class _Sums:
    """Accumulates over batches; everything is in float64 or whole numbers."""

    def __init__(self, dictionary: Crosscoder) -> None:
        self.dictionary = dictionary
        groups = [group.name for group in dictionary.partition.groups]
        written = [h for h in dictionary.hookpoints if h.writes]
        self.whole = {h.name: VarianceExplained(h.name) for h in written}
        self.error_without = {group: dict.fromkeys(self.whole, 0.0) for group in groups}
        self.fired_F = torch.zeros(dictionary.partition.features, dtype=torch.int64)
        self.rows = 0

    @torch.no_grad()
    def over(self, batches: Iterable[Batch]) -> Evaluation:
        """Takes all batches in."""
        for batch in batches:
            codes, x_hat = reconstruct(self.dictionary, batch.activations)
            wanted = self.dictionary.targets(batch.activations)
            for name, sums in self.whole.items():
                sums.update(wanted[name], x_hat[name])
            self.fired_F += torch.bincount(codes.pattern.columns, minlength=len(self.fired_F)).cpu()
            self.rows += len(batch.rows)
            for group in self.error_without:
                self._do_without(group, codes, wanted)
        return self._result()

    def _do_without(self, group: str, codes: SparseCodes, wanted: Activations) -> None:
        """Squared errors of a batch that is decoded with the group's codes at zero."""
        here = self.dictionary.partition.slices[group]
        columns = codes.pattern.columns
        others = (columns < here.start) | (columns >= here.stop)
        x_hat = self.dictionary.decode(replace(codes, values=codes.values * others))
        for name, x_hat_BD in x_hat.items():
            x_BD = wanted[name].to(x_hat_BD.device, torch.float64)
            self.error_without[group][name] += float((x_BD - x_hat_BD).square().sum())

    def _result(self) -> Evaluation:
        scales = self.dictionary.scale.tolist()
        scale = {h.name: s for h, s in zip(self.dictionary.hookpoints, scales, strict=True)}
        return Evaluation(
            fve={name: sums.fve for name, sums in self.whole.items()},
            l0=int(self.fired_F.sum()) / self.rows if self.rows else None,
            rows=self.rows,
            loss=self._loss(scale),
            never_fired=float((self.fired_F == 0).double().mean()) if self.rows else None,
            l0_share=self._l0_share(),
            fve_share={group: self._fve_share(group) for group in self.error_without},
            scale=scale,
        )

    def _loss(self, scale: dict[str, float]) -> float | None:
        errors = [scale[name] ** 2 * sums.squared_error for name, sums in self.whole.items()]
        return sum(errors) / self.rows if self.rows else None

    def _l0_share(self) -> dict[str, float | None]:
        active = int(self.fired_F.sum())
        slices = self.dictionary.partition.slices
        return {
            group: int(self.fired_F[slices[group]].sum()) / active if active else None
            for group in self.error_without
        }

    def _fve_share(self, group: str) -> dict[str, float | None]:
        without = self.error_without[group]
        return {
            name: None
            if (total := sums.variance) is None
            else (without[name] - sums.squared_error) / total
            for name, sums in self.whole.items()
        }


def reconstruct(
    dictionary: Crosscoder, activations: Activations
) -> tuple[SparseCodes, Activations]:
    """Codes of raw activations, and what they decode to."""
    codes = dictionary.encode(activations)
    return codes, dictionary.decode(codes)
