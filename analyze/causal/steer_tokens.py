"""Which tokens a change of a model makes likelier and unlikelier, on average over positions.

Ranked by the mean change of log-probability in nats. Rare tokens move most on this scale, so the
mean probabilities before and after stand beside it. n positions, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

SLICE_VALUES = 1 << 22  # scores widened at a time


@dataclass(frozen=True)
class TokenChange:
    """A token, its rank (from 0) among those promoted or suppressed, and its means."""

    token: int
    promoted: bool
    rank: int
    log_change: float
    probability_clean: float
    probability_changed: float


class TokenSums:
    """Float64 sums per token of the tokenizer: `vocabulary` ids, of however many a model scores."""

    def __init__(self, vocabulary: int) -> None:
        self._vocabulary, self._positions = vocabulary, 0
        self._sums_3V: Float64[Tensor, "3 V"] | None = None

    def add(self, clean_nV: Float[Tensor, "n V"], changed_nV: Float[Tensor, "n V"]) -> None:
        """Takes positions in."""
        self._positions += len(clean_nV)
        size = max(1, SLICE_VALUES // clean_nV.shape[1])
        for x, y in zip(clean_nV.split(size), changed_nV.split(size), strict=True):
            x = torch.log_softmax(x.double(), dim=1)[:, : self._vocabulary]
            y = torch.log_softmax(y.double(), dim=1)[:, : self._vocabulary]
            change = torch.where(x == y, 0, y - x)  # both may be -inf
            here_3V = torch.stack([change.sum(0), x.exp().sum(0), y.exp().sum(0)])
            self._sums_3V = here_3V if self._sums_3V is None else self._sums_3V + here_3V

    def best(self, count: int) -> tuple[TokenChange, ...]:
        """The tokens promoted most, then those suppressed most, at most so many of each."""
        if self._sums_3V is None:
            return ()
        means_3V = (self._sums_3V / self._positions).cpu()
        found = []
        for promoted in (True, False):
            most = means_3V[0].topk(min(count, means_3V.shape[1]), largest=promoted).indices
            found += [
                TokenChange(token, promoted, rank, *means_3V[:, token].tolist())
                for rank, token in enumerate(most.tolist())
            ]
        return tuple(found)
