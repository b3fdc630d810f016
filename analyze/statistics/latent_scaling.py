"""The sums of latent scaling for every pair of hookpoints, in both directions."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from analyze.norms import model_pair
from analyze.pairing import HookpointPair, claimed_for, hookpoint_pairs
from analyze.scaling import ScalingSums
from analyze.subject import Subject
from analyze.sweep.seen import Seen


class LatentScaling:
    """`parts`: the sums of each pair, seen from each of its models (see analyze.scaling).

    directions: look for the best direction of the other model where widths are equal, too.
    batch_rows: of the sweep; within a batch the null's rows are exchanged. Raises DictionaryError
    if the dictionary's hookpoints do not come in pairs.
    """

    def __init__(self, subject: Subject, batch_rows: int, directions: bool = False) -> None:
        self.name = "scaling_directions" if directions else "scaling"
        self._batch_rows = batch_rows
        dictionary = subject.dictionary
        claimed = claimed_for(dictionary)
        first, second = model_pair(dictionary)

        def one(pair: HookpointPair, model: str) -> ScalingSums:
            wanted = directions or not pair.equal_widths(dictionary)
            return ScalingSums(dictionary, pair, claimed[model], wanted)

        self.parts = [
            sums
            for pair in hookpoint_pairs(dictionary)
            for sums in (one(pair, first), one(pair.reversed(), second))
        ]

    def settings(self) -> dict[str, Any]:
        """The batch that the null's rows are exchanged in."""
        return {"batch_rows": self._batch_rows}

    def update(self, seen: Seen) -> None:
        """Takes a batch in."""
        for sums in self.parts:
            sums.update(seen.codes, seen.x, seen.x_hat, int(seen.rows[0]))

    def state(self) -> dict[str, Tensor]:
        """All sums, by the number of their part."""
        return {
            f"{number}.{name}": value
            for number, sums in enumerate(self.parts)
            for name, value in sums.state().items()
        }

    def absorb(self, state: dict[str, Tensor]) -> None:
        """Adds sums over other rows."""
        for number, sums in enumerate(self.parts):
            mark = f"{number}."
            sums.absorb({n.removeprefix(mark): v for n, v in state.items() if n.startswith(mark)})
