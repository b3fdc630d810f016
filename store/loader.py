"""Shuffled batches from one store or a mixture, forever: deterministic, seekable, bounded memory.

The sequence of global batches depends on (stores, split, seed, batch size, window) alone, not on
threads, readers or ranks; each rank takes its slice of every global batch, and the slices of all
ranks together are the global batch. Every row of a split comes exactly once per epoch; a
batch may reach over the end of an epoch into the next, so all batches have the same size.

State is one integer (the number of batches taken) and seeking is O(1). Memory: page cache (or, for
chunks that must be decoded, RAM) of the window that is read and the one made ready, 8 B per row of
each, `prefetch` batches, 17 B per document; nothing grows with the number of rows. Cost per
batch: one gather per hookpoint, in threads, ahead of the consumer.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import StoreError
from store.buffers import BufferPool
from store.device import DeviceCopy
from store.reader import Store
from store.selection import Split
from store.stream import Piece, RowStream, shares


@dataclass(frozen=True)
class Batch:
    """activations: hookpoint name -> (batch, width); rows: store row numbers, int64 (batch,).

    In a mixture the rows of the second store are numbered behind those of the first, and so on.
    """

    activations: dict[str, Tensor]
    rows: np.ndarray


@dataclass(frozen=True)
class LoaderOptions:
    """What the order depends on, and, from `ranks` on, what it does not.

    batch_rows: rows of a global batch, of all ranks together; window_chunks: None for the
    store's default; scales: what a hookpoint's rows are multiplied with; device: where batches are
    delivered, if it is a CUDA device, through pinned memory; verify: compare a chunk's checksums
    when it is first touched.
    """

    batch_rows: int
    seed: int = 0
    window_chunks: int | None = None
    split: Split = "train"
    validation_fraction: float = 0.0
    ranks: int = 1
    rank: int = 0
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    scales: dict[str, float] = field(default_factory=dict)
    threads: int = 2
    prefetch: int = 4
    device: torch.device | None = None
    verify: bool = True

    def __post_init__(self) -> None:
        least = {"batch_rows": 1, "ranks": 1, "rank": 0, "seed": 0, "threads": 1}
        for name, lowest in least.items():
            if getattr(self, name) < lowest:
                raise StoreError(f"loader: {name} {getattr(self, name)} is below {lowest}")
        if self.window_chunks is not None and self.window_chunks < 1:
            raise StoreError(f"loader: window_chunks {self.window_chunks} is below 1")
        if self.rank >= self.ranks:
            raise StoreError(f"loader: rank {self.rank} is not one of {self.ranks} ranks")
        if self.batch_rows % self.ranks:
            raise StoreError(
                f"loader: batch_rows {self.batch_rows} cannot be shared equally by "
                f"{self.ranks} ranks"
            )


class ShuffledLoader:
    """Iterates over shuffled batches.

    `stores` is a store, or several with equal hookpoints; `weights` are then their shares of
    every batch (default: their rows). Raises StoreError if they differ or a split has no rows.
    """

    def __init__(
        self,
        stores: Store | Sequence[Store],
        options: LoaderOptions,
        weights: Sequence[float] | None = None,
    ) -> None:
        self.stores = [stores] if isinstance(stores, Store) else list(stores)
        self.options = options
        self.batches_taken = 0
        self._rows = options.batch_rows // options.ranks
        _refuse_different(self.stores)
        for name in options.scales:
            self.stores[0].hookpoint(name)
        self._streams = [
            RowStream(
                store,
                options.split,
                options.validation_fraction,
                options.seed | number << 64,
                options.window_chunks,
                options.verify,
            )
            for number, store in enumerate(self.stores)
        ]
        if weights is None:
            weights = [stream.rows_per_epoch for stream in self._streams]
        if len(weights) != len(self.stores):
            raise StoreError(f"a mixture of {len(self.stores)} stores, but {len(weights)} weights")
        self._weights = _integers(weights)
        self._first_rows = np.cumsum([0, *(store.rows for store in self.stores)])
        self._workers = ThreadPoolExecutor(options.threads, thread_name_prefix="chunks")
        cuda = options.device is not None and options.device.type == "cuda"
        self._copy = DeviceCopy(options.device) if options.device is not None and cuda else None
        kind = np.int16 if options.dtype == "bfloat16" else np.float32
        self._pools = {
            hookpoint.name: BufferPool((self._rows, hookpoint.width), kind, pin_memory=cuda)
            for hookpoint in self.stores[0].schema.hookpoints
        }

    @property
    def rows_per_epoch(self) -> int:
        """Rows of the split in all stores."""
        return sum(stream.rows_per_epoch for stream in self._streams)

    def state_dict(self) -> dict[str, Any]:
        """Where the loader stands (`batches_taken`), and what must be the same to go on there."""
        return {
            "batches_taken": self.batches_taken,
            "batch_rows": self.options.batch_rows,
            "seed": self.options.seed,
            "stores": [stream.identity() for stream in self._streams],
            "weights": self._weights,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Seeks; begin a new iteration after it. Raises StoreError if the order is another one."""
        for key, mine in self.state_dict().items():
            if key != "batches_taken" and state.get(key) != mine:
                raise StoreError(
                    f"{self.stores[0].path}: loader state has {key} {state.get(key)}, now {mine}: "
                    "not the same order of rows; restore the setting or train anew"
                )
        self.batches_taken = int(state["batches_taken"])

    def __iter__(self) -> Generator[Batch, None, None]:
        """Yields batches from where the loader stands, reading ahead in threads."""
        gatherers = ThreadPoolExecutor(self.options.threads, thread_name_prefix="loader")
        ahead: deque[Future[Batch]] = deque()
        submitted = taken = self.batches_taken
        try:
            while True:
                while len(ahead) < max(1, self.options.prefetch):
                    located = self._locate(submitted, RowStream.advance)
                    ahead.append(gatherers.submit(self._gather, located))
                    submitted += 1
                batch = ahead.popleft().result()
                taken += 1
                self.batches_taken = taken
                yield self._handed_over(batch)
                del batch  # or its memory would be taken while the next is waited for
        finally:
            # What waits in a queue is dropped, or an error would be shown and then waited out.
            for stream in self._streams:
                stream.cancel()
            for future in ahead:
                future.cancel()
            gatherers.shutdown(wait=True)

    def read(self, batch: int) -> Batch:
        """One batch by its number, without moving the loader."""
        return self._handed_over(self._gather(self._locate(batch, RowStream.pieces)))

    def _handed_over(self, batch: Batch) -> Batch:
        if self._copy is not None:
            self._copy.hand_over(batch.activations)
        return batch

    def _locate(
        self, batch: int, find: Callable[[RowStream, int, int, Executor], list[Piece]]
    ) -> list[list[Piece]]:
        """Per store, where the rows of this rank's slice lie."""
        start = batch * self.options.batch_rows + self.options.rank * self._rows
        wanted = shares(self._weights, start, start + self._rows)
        return [
            find(stream, first, last, self._workers) if first < last else []
            for stream, (first, last) in zip(self._streams, wanted, strict=True)
        ]

    def _gather(self, located: list[list[Piece]]) -> Batch:
        """Copies the located rows out of their windows."""
        outs = {name: pool.take() for name, pool in self._pools.items()}
        numbers = []
        position = 0
        for first_row, pieces in zip(self._first_rows[:-1], located, strict=True):
            for piece in pieces:
                size = piece.last - piece.first
                here = {n: out[position : position + size] for n, out in outs.items()}
                rows = piece.window.gather(piece.first, piece.last, here, self.options.scales)
                numbers.append(first_row + rows)
                position += size
        tensors = {name: _tensor(out) for name, out in outs.items()}
        return Batch(self._copy.send(tensors) if self._copy else tensors, np.concatenate(numbers))


def _tensor(values: np.ndarray) -> Tensor:
    tensor = torch.from_numpy(values)
    return tensor.view(torch.bfloat16) if values.dtype == np.int16 else tensor


def _integers(weights: Sequence[float]) -> list[int]:
    """The same proportions in whole numbers. Raises StoreError unless all are above zero."""
    if not all(0 < weight < math.inf for weight in weights):
        raise StoreError(f"weights of a mixture must be finite and above zero, got {list(weights)}")
    exact = [Fraction(float(weight)).limit_denominator(10**9) for weight in weights]
    if min(exact) <= 0:
        raise StoreError(f"weights of a mixture are too far apart: {list(weights)}")
    scale = math.lcm(*(weight.denominator for weight in exact))
    return [int(weight * scale) for weight in exact]


def _refuse_different(stores: Sequence[Store]) -> None:
    if not stores:
        raise StoreError("a loader needs at least one store")
    first = stores[0]
    for store in stores[1:]:
        if store.schema.hookpoints != first.schema.hookpoints:
            ours, theirs = (
                ", ".join(f"{h.name} ({h.width})" for h in s.schema.hookpoints)
                for s in (first, store)
            )
            raise StoreError(
                f"{store.path}: has hookpoints {theirs}, but {first.path} has {ours}; "
                "a mixture needs the same in all stores"
            )
