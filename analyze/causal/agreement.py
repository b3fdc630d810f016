"""Does a feature's direction, carried over to the other model, do there what it does in its own?

Steering with a direction moves the prediction of how the text goes on: its signature is
(p(c | x + s_max d) - p(c | x - s_max d)) / 2, the mean over rows where the feature fires, c the
classes of `next_text`, which models with different tokenizers share. What any push does, in
whichever direction, is the same on both sides of x and drops out. The agreement is the cosine of
the signatures of the own direction in the own model and of the mapped one (`steer_mapped`) in the
other: near 1 for what both models use alike, near 0 if the other has no use for it.

Costs 4 passes over the texts per feature. V vocabulary, C classes, n rows of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from analyze.causal.batches import padded_batches
from analyze.causal.logits import SLICE_VALUES
from analyze.causal.memory import passes_memory
from analyze.causal.next_text import NextText
from analyze.causal.passages import Reading
from analyze.causal.steer import scores_at_rows
from analyze.causal.steer_steps import Step
from harvest.models.hooked import HookedModel


@dataclass(frozen=True)
class Signature:
    """Mean change of the probability of each class, over `positions` rows."""

    change_C: Float64[Tensor, " C"]
    positions: int

    @property
    def size(self) -> float:
        """Probability moved between classes from one side to the other: total variation, 0 to 1."""
        return float(self.change_C.abs().sum())


def signature(
    model: HookedModel,
    readings: Sequence[Reading],
    step: Step,
    classes: NextText,
    batch_tokens: int,
) -> Signature:
    """What a step does to a model at the readings' rows.

    batch_tokens: padded tokens of a pass. Raises ModelError where memory runs out.
    """
    change_V, positions = torch.zeros((), dtype=torch.float64), 0
    with passes_memory(f"models.{model.name}", batch_tokens):
        for batch in padded_batches(readings, batch_tokens):
            up_V, down_V = (
                _summed_probabilities(scores_at_rows(model, batch, step.edits(sign)))
                for sign in (1.0, -1.0)
            )
            change_V = change_V.to(up_V.device) + (up_V - down_V) / 2
            positions += len(batch.places)
    if not positions:
        return Signature(torch.zeros(len(classes.classes), dtype=torch.float64), 0)
    return Signature(classes.by_class(model.name, change_V / positions).cpu(), positions)


def agreement(own: Signature, other: Signature) -> float | None:
    """The cosine of two signatures; None where one of them is zero."""
    lengths = float(own.change_C.norm() * other.change_C.norm())
    return float(own.change_C @ other.change_C) / lengths if lengths > 0 else None


def _summed_probabilities(scores_nV: Tensor) -> Float64[Tensor, " V"]:
    """Sum over rows of the softmax, widened a slice of rows at a time."""
    total_V = scores_nV.new_zeros(scores_nV.shape[1], dtype=torch.float64)
    size = max(1, SLICE_VALUES[scores_nV.device.type] // scores_nV.shape[1])
    for part in scores_nV.split(size):
        total_V += part.double().softmax(dim=1).sum(dim=0)
    return total_V
