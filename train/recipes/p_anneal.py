"""p-annealing (Karvonen et al., arXiv 2408.00113): the penalty goes from L1 towards L0.

L_p^p with p falling in a few changes. At each change the penalty's weight is rescaled such that the
term keeps its size on the last batches:

    weight_new = weight * mean(sum f^p_old) / mean(sum f^p_new).

Which p holds at a step is a pure function of the step; weight and recent sums are the state, as
tensors on the device, so that nothing waits for it and a checkpoint resumes bit-exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.errors import ConfigError

RECENT = 10  # batches over which the two sums are compared


@dataclass(frozen=True)
class PSchedule:
    """p falls linearly from p_start to p_end in `updates` equal changes.

    Change i of n comes at step first_step + i (last_step - first_step) / n, rounded up: the last
    one at last_step. Raises ConfigError if there are fewer steps than changes.
    """

    p_start: float
    p_end: float
    first_step: int
    last_step: int
    updates: int

    def __post_init__(self) -> None:
        room = self.last_step - self.first_step
        if self.updates > room:
            raise ConfigError(
                f"train.p_updates: {self.updates} changes of p do not fit between steps "
                f"{self.first_step} and {self.last_step}; at most {max(room, 0)} do"
            )

    def changes(self, step: int) -> int:
        """How many changes have been made when this step begins to compute."""
        made = (step - self.first_step) * self.updates // (self.last_step - self.first_step)
        return min(max(made, 0), self.updates)

    def p(self, step: int) -> float:
        """p of this step's penalty."""
        return self._after(self.changes(step))

    def next_p(self, step: int) -> float | None:
        """p after the change to come; None after the last one."""
        made = self.changes(step)
        return None if made == self.updates else self._after(made + 1)

    def is_change(self, step: int) -> bool:
        """Whether p is another one at this step than at the step before."""
        return self.changes(step) != self.changes(step - 1)

    def _after(self, made: int) -> float:
        share = made / self.updates
        return self.p_start * (1 - share) + self.p_end * share


class PAnneal:
    """The penalty's weight under a schedule. Per step: `begin`, then the loss, then `record`.

    weight: () on the device. Recorded sums: (2, RECENT), of p as it is and as it will be next.
    """

    def __init__(
        self,
        schedule: PSchedule,
        weight: float,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.schedule = schedule
        self.weight = torch.tensor(weight, dtype=dtype, device=device)
        self._sums = torch.zeros(2, RECENT, dtype=dtype, device=device)

    @torch.no_grad()
    def begin(self, step: int) -> float:
        """p of this step; where it is a new one, the weight is rescaled first.

        The weight stays as it is if nothing was recorded, or only codes of zero. To be called once
        per step: a step that is tried again must not begin again.
        """
        if self.schedule.is_change(step):
            old, new = self._sums.sum(dim=1)
            possible = (old > 0) & (new > 0)
            self.weight.mul_(torch.where(possible, old / torch.where(possible, new, 1), 1))
            self._sums.zero_()
        return self.schedule.p(step)

    @torch.no_grad()
    def record(self, step: int, now: Tensor, following: Tensor) -> None:
        """Keeps sum f^p for p(step) and for next_p(step), means over rows (several processes: over
        all rows). A batch that is not finite counts as none."""
        pair = torch.stack([now, following]).detach().to(self._sums)
        self._sums[:, step % RECENT] = torch.where(pair.isfinite().all(), pair, 0)

    def tensors(self) -> dict[str, Tensor]:
        """The state, by name, as copies."""
        return {"weight": self.weight.clone(), "sums": self._sums.clone()}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Takes over a state of `tensors`. Raises KeyError or RuntimeError if it is none."""
        self.weight.copy_(tensors["weight"])
        self._sums.copy_(tensors["sums"])
