"""Which source the next document comes from, so that each has its share at any time.

Shares are kept exactly: after any number of documents each source has its share within one. The
order is a function of the weights and of how many documents came from each, with no randomness:
the quota method of Balinski and Young, which gives seats to parties. In integers, so that no
rounding makes two machines disagree; about 1 µs per document and source.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction


class Mixture:
    """Counts of documents by source, since a source last ended; and which sources go on.

    weights: positive shares, by source, taken for the decimals that they print as.
    """

    def __init__(
        self,
        weights: Sequence[float],
        counts: Sequence[int] | None = None,
        live: Sequence[bool] | None = None,
    ) -> None:
        exact = [Fraction(repr(weight)) for weight in weights]
        scale = math.lcm(*(weight.denominator for weight in exact))
        self._weights = [int(weight * scale) for weight in exact]
        whole = math.lcm(*self._weights)
        self._intervals = [whole // weight for weight in self._weights]
        self.counts = list(counts) if counts else [0] * len(weights)
        self.live = list(live) if live else [True] * len(weights)

    def next(self) -> int | None:
        """The source of the next document; None once all have ended.

        Of those below their share of one document more, the one whose next document is due
        first: after so many documents its share grows to that one. The earlier source if equal.
        """
        live = [source for source, on in enumerate(self.live) if on]
        total = sum(self._weights[source] for source in live)
        number = 1 + sum(self.counts[source] for source in live)
        below = (
            source
            for source in live
            if self.counts[source] * total < self._weights[source] * number
        )
        return min(below, key=self._due, default=None)

    def add(self, source: int) -> None:
        """Counts one document of this source."""
        self.counts[source] += 1

    def drop(self, source: int) -> None:
        """Goes on without a source that has ended; shares count from here on."""
        self.live[source] = False
        self.counts = [0] * len(self.counts)

    def _due(self, source: int) -> int:
        return (self.counts[source] + 1) * self._intervals[source]
