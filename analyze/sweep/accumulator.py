"""What every statistic of a sweep is: sums that grow batch by batch, add up, and go to disk."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from analyze.sweep.seen import Seen


class Accumulator(Protocol):
    """Memory is bounded by the dictionary, never by the rows.

    A fresh one that absorbs the states of several, each of which has seen other rows, is as if it
    had seen all of them: so sweeps resume, and processes share one.
    """

    @property
    def name(self) -> str:
        """Names its file; no two of one sweep are called the same."""

    def settings(self) -> dict[str, Any]:
        """JSON values that its numbers depend on, beside store and dictionary."""

    def update(self, seen: Seen) -> None:
        """Takes a batch in."""

    def state(self) -> dict[str, Tensor]:
        """All that it has summed up."""

    def absorb(self, state: dict[str, Tensor]) -> None:
        """Adds what another one has summed up on other rows."""
