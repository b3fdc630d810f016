"""The null pair's rows for the trainer: those of a store, changed batch by batch, in its order.

Nothing is written: the null costs no disk, only the matrix products of its copies.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import replace
from functools import cached_property
from typing import Any

from torch import Tensor

from analyze.null.pair import NullPair
from store.loader import Batch
from store.schema import Hookpoint
from store.statistics import RowStatistics
from train.source import StoreRows


class NullRows:
    """A train.source.RowSource of the null pair over the documents of a store."""

    def __init__(self, rows: StoreRows, pair: NullPair) -> None:
        self._rows, self._pair = rows, pair
        self.name = f"{rows.name} ({pair.name})"

    @property
    def hookpoints(self) -> tuple[Hookpoint, ...]:
        """Those of the real pair."""
        return self._rows.hookpoints

    @property
    def batches_taken(self) -> int:
        """Batches that the iteration has yielded, before a resume too."""
        return self._rows.batches_taken

    @property
    def rows_per_epoch(self) -> int:
        """Rows of the training documents."""
        return self._rows.rows_per_epoch

    @property
    def memory_bytes(self) -> int:
        """As the real pair's."""
        return self._rows.memory_bytes

    def binding(self) -> dict[str, Any]:
        """The store's, and the null pair."""
        return {**self._rows.binding(), "null": self._pair.name}

    def provenance(self) -> dict[str, Any]:
        """The same, as a dictionary keeps it."""
        return {**self._rows.provenance(), "null": self._pair.name}

    def statistics(self, hookpoint: str) -> RowStatistics:
        """The store's; of a copy, those of the first batch, from which only a scale is taken."""
        if hookpoint not in {copy.other for copy in self._pair.copies}:
            return self._rows.statistics(hookpoint)
        return RowStatistics.of(self._sample[hookpoint])

    @cached_property
    def _sample(self) -> dict[str, Tensor]:
        return self.first_batch()

    def first_batch(self) -> dict[str, Tensor]:
        """Activations of the whole of batch 0."""
        return self._pair.view(self._rows.whole_batch(0))

    def sample(self, rows: int) -> Iterator[Batch]:
        """Rows of training documents, spread over the store."""
        for batch in self._rows.sample(rows):
            yield self._seen(batch)

    def validation(self) -> Iterator[Batch]:
        """Held-out rows, in storage order."""
        for batch in self._rows.validation():
            yield self._seen(batch)

    def damage(self, first: int, last: int) -> str | None:
        """What is wrong with the store's rows of these batches."""
        return self._rows.damage(first, last)

    def state_dict(self) -> dict[str, Any]:
        """The loader's state."""
        return self._rows.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Seeks. Raises StoreError if the order of rows is another one."""
        self._rows.load_state_dict(state)

    def __iter__(self) -> Generator[Batch, None, None]:
        """Yields batches, read ahead in threads."""
        for batch in iter(self._rows):
            yield self._seen(batch)

    def _seen(self, batch: Batch) -> Batch:
        return replace(batch, activations=self._pair.view(batch))
