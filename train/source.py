"""Where training rows come from: what the loop asks of a store, or of the models themselves.

`--live` (train/live_cli.py) brings the other one; this package knows it by this protocol alone.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from store.loader import Batch, LoaderOptions, ShuffledLoader
from store.reader import Store
from store.schema import Hookpoint
from store.selection import Split
from store.statistics import RowStatistics
from store.sweep import sweep
from store.window import window_bytes
from train.config import TrainConfig
from train.device import resolve_device
from train.ranks import ALONE, Ranks


@runtime_checkable
class RowSource(Protocol):
    """Shuffled batches without end, held-out rows, and what to know of them before the first.

    Raises errors of pipeline.errors. What is asked of the first rows is asked before iterating.
    """

    @property
    def name(self) -> str:
        """What errors call it."""

    @property
    def hookpoints(self) -> tuple[Hookpoint, ...]:
        """What a row holds."""

    @property
    def batches_taken(self) -> int:
        """Batches that the iteration has yielded, before a resume too."""

    @property
    def rows_per_epoch(self) -> int | None:
        """Training rows until they come again; None where that is not known ahead."""

    @property
    def memory_bytes(self) -> int:
        """Memory that the shuffle goes over."""

    def binding(self) -> dict[str, Any]:
        """What rows and their order depend on beside the train section, as JSON values."""

    def provenance(self) -> dict[str, Any]:
        """What a dictionary says of the rows it was trained on, as JSON values."""

    def statistics(self, hookpoint: str) -> RowStatistics:
        """Statistics of the rows, from which the scales follow."""

    def first_batch(self) -> dict[str, Tensor]:
        """Activations of the first batch, which stays the first."""

    def sample(self, rows: int) -> Iterator[Batch]:
        """Up to so many rows of training documents, spread over all of them, each once.

        The whole sample on every rank, the same ones for the same source.
        """

    def validation(self) -> Iterator[Batch]:
        """Rows of held-out documents."""

    def damage(self, first: int, last: int) -> str | None:
        """What is wrong with the rows of batches [first, last), in one line; None: nothing."""

    def state_dict(self) -> dict[str, Any]:
        """Where the batches stand, as JSON values."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from there."""

    def __iter__(self) -> Generator[Batch, None, None]:
        """Yields batches from where they stand."""


def store_provenance(store: Store) -> dict[str, Any]:
    """What a dictionary that was trained on a store says of it, as JSON values."""
    return {"store": {"fingerprints": store.schema.fingerprints, "rows": store.rows}}


class StoreRows:
    """The documents of a store; a run that is resumed gets the very batches that were to come.

    Of several ranks each iterates over its own rows of every batch. Raises ConfigError if a batch
    cannot be shared equally.
    """

    def __init__(self, store: Store, config: TrainConfig, ranks: Ranks = ALONE) -> None:
        self._store = store
        self._config = config
        device = resolve_device(config.device)
        self._loader = make_loader(store, config, device, ranks)
        # What every rank must see the same of is read whole by each.
        self._whole = make_loader(store, config, device) if ranks.size > 1 else self._loader
        self.name = str(store.path)
        self.hookpoints = store.schema.hookpoints

    @property
    def batches_taken(self) -> int:
        """Batches that the iteration has yielded, before a resume too."""
        return self._loader.batches_taken

    @property
    def rows_per_epoch(self) -> int:
        """Rows of the training documents."""
        return self._loader.rows_per_epoch

    @property
    def memory_bytes(self) -> int:
        """Two windows of chunks: page cache, where chunks are mapped."""
        return window_bytes(self._store, self._config.window_chunks)

    def binding(self) -> dict[str, Any]:
        """The store's fingerprints and size."""
        store = self._store
        return {"store_fingerprints": store.schema.fingerprints, "store_rows": store.rows}

    def provenance(self) -> dict[str, Any]:
        """The same, as a dictionary keeps it."""
        return store_provenance(self._store)

    def statistics(self, hookpoint: str) -> RowStatistics:
        """Statistics of all rows of the store, read from its attributes."""
        return self._store.statistics(hookpoint)

    def first_batch(self) -> dict[str, Tensor]:
        """Activations of the whole of batch 0."""
        return self.whole_batch(0).activations

    def whole_batch(self, number: int) -> Batch:
        """A batch of all ranks together."""
        return self._whole.read(number)

    def sample(self, rows: int) -> Iterator[Batch]:
        """Rows of training documents, the same share of every chunk, in storage order."""
        return self._sweep("train", rows)

    def validation(self) -> Iterator[Batch]:
        """Held-out rows, spread over the store, in storage order."""
        return self._sweep("validation", self._config.validation_rows)

    def _sweep(self, split: Split, limit: int) -> Iterator[Batch]:
        config = self._config
        return sweep(
            self._store,
            config.batch_rows,
            split,
            config.validation_fraction,
            limit=limit,
            verify=config.verify_chunks,
        )

    def damage(self, first: int, last: int) -> str | None:
        """Reads batches again to find values that are not finite."""
        for number in range(first, last):
            for name, x_BD in self.whole_batch(number).activations.items():
                if not x_BD.isfinite().all():
                    return (
                        f"{self.name}: {name}: activations of batch {number + 1} are not finite; "
                        "look for the damage with `store verify`"
                    )
        return None

    def state_dict(self) -> dict[str, Any]:
        """The loader's state."""
        return self._loader.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Seeks. Raises StoreError if the order of rows is another one."""
        self._loader.load_state_dict(state)

    def __iter__(self) -> Generator[Batch, None, None]:
        """Yields batches, read ahead in threads."""
        return iter(self._loader)


def make_loader(
    store: Store, config: TrainConfig, device: torch.device | None = None, ranks: Ranks = ALONE
) -> ShuffledLoader:
    """The loader over the training documents, which delivers this rank's rows to `device`."""
    ranks.rows_of(config.batch_rows)
    return ShuffledLoader(
        store,
        LoaderOptions(
            batch_rows=config.batch_rows,
            seed=config.seed,
            window_chunks=config.window_chunks,
            validation_fraction=config.validation_fraction,
            ranks=ranks.size,
            rank=ranks.rank,
            threads=config.loader_threads,
            device=device,
            verify=config.verify_chunks,
        ),
    )
