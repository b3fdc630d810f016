"""When a run is past saving: its loss is not finite, or has grown a thousandfold.

Looked at where the device is waited for anyway: before a line is logged, before held-out rows are
evaluated and before a checkpoint is written, so that every checkpoint is a good one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from train.step_metrics import StepMetrics
from train.trainee import Trainee

DIVERGED = 1e3  # times the best running loss
SMOOTHING = 0.9  # of the running loss, per line of the log


@dataclass
class LossWatch:
    """The losses of the log: the first, their running mean, and the lowest that this was.

    A loss has diverged where it is DIVERGED times the lowest and above the first. The first
    counts because a loss may fall to almost nothing and rise again as k is annealed.
    """

    first: float | None = None
    running: float | None = None
    best: float | None = None

    def diverged(self, loss: float) -> bool:
        """Whether this loss is beyond hope; no before the first."""
        if self.first is None or self.best is None:
            return False
        return loss > max(DIVERGED * self.best, self.first)

    def take(self, loss: float) -> None:
        """Takes in a logged loss; one that is not finite is of a skipped batch."""
        if not math.isfinite(loss):
            return
        if self.first is None or self.running is None or self.best is None:
            self.first = self.running = self.best = loss
            return
        self.running = SMOOTHING * self.running + (1 - SMOOTHING) * loss
        self.best = min(self.best, self.running)


def not_finite(result: StepMetrics) -> str | None:
    """What is not finite in a step: a term of the loss by its name, or the gradient; None: all is.

    A term is named before the loss that it spoils, and the loss before its gradient.
    """
    values = {
        **{f"the {name} term of the loss": term for name, term in result.terms.items()},
        "the loss": result.loss,
        "the gradient's norm": result.gradient_norm,
    }
    for name, value in values.items():
        if not math.isfinite(float(value)):
            return f"{name} is {float(value)}"
    return None


def diverged(result: StepMetrics, watch: LossWatch) -> str | None:
    """How far the loss of a step has diverged, and the largest of its terms; None: it has not."""
    loss = float(result.loss)
    if not watch.diverged(loss):
        return None
    terms = {name: float(term) for name, term in result.terms.items()}
    largest = max(terms, key=lambda name: abs(terms[name]))
    return (
        f"the loss has diverged to {loss:.4g} from {watch.best:.4g} "
        f"(its largest term is {largest}, {terms[largest]:.4g})"
    )


def what_is_spoilt(trainee: Trainee) -> str | None:
    """The first weight or moment of Adam that is not finite, in words; None: all are finite."""
    names = {value: name for name, value in trainee.dictionary.named_parameters()}
    for parameter, name in names.items():
        if not _finite(parameter.detach()):
            return f"the weights {name} are not finite"
        for kind, moment in trainee.optimizer.state[parameter].items():
            if not _finite(moment):
                return f"Adam's {kind} of {name} is not finite"
    return None


def _finite(tensor: torch.Tensor) -> bool:
    # A maximum is a pass without a second tensor, and NaN and infinity go through it.
    return tensor.numel() == 0 or bool(tensor.abs().amax().isfinite())
