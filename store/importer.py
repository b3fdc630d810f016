"""Turns activation caches of equal length into one store, a hookpoint per cache.

Streams blocks of whole documents of at most chunk_rows rows: memory is a few blocks, whatever the
caches' size. Killed at any instant and run again, it ends with the bytes of an undisturbed run;
caches that have changed in between are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
from torch import Tensor

from pipeline.errors import StoreError
from store.arrays import part_arrays
from store.block import Block
from store.cache import Cache
from store.files import TEMPORARY
from store.reader import Store
from store.root import refuse_other_schema
from store.schema import StoreSchema
from store.transcript import Decoder, Transcript, decode, spell, spell_rows
from store.writer import PartWriter


@dataclass(frozen=True)
class ImportPlan:
    """What will be written.

    caches and tokens (rows,): by hookpoint and by model, in the schema's order; a model without
    token ids is left out. ends: row behind the last of each document, int64 (documents,);
    sequences: how many there were before long ones were cut, None where no cache says.
    """

    schema: StoreSchema
    caches: dict[str, Cache]
    tokens: dict[str, Tensor]
    ends: np.ndarray
    sequences: int | None
    label: str
    decoder: Decoder | None

    @property
    def rows(self) -> int:
        """Rows of every cache."""
        return int(self.ends[-1])

    @property
    def bytes(self) -> int:
        """Bytes of the rows on disk, before lossless compression; texts come on top."""
        layouts = [array.layout for array in part_arrays(self.schema) if array.unit == "rows"]
        return sum(-(-self.rows // layout.rows) * layout.chunk_bytes for layout in layouts)

    @cached_property
    def reference(self) -> str | None:
        """The model whose tokens give the text: the first that has any."""
        return next((m for m in self.schema.models if m in self.tokens), None)


def check_target(plan: ImportPlan, path: Path) -> bool:
    """Whether the store at `path` is there and complete; writes nothing.

    Raises StoreError if it was begun from other caches or settings, or is no store.
    """
    if (path / "zarr.json").exists():
        refuse_other_schema(path, plan.schema)
        return Store(path).complete
    begun = f"zarr.json{TEMPORARY}"  # what an import leaves that died right at its beginning
    if path.exists() and not (path.is_dir() and all(p.name == begun for p in path.iterdir())):
        raise StoreError(
            f"{path}: is there and is not a store; name the store to write last, after the caches"
        )
    return False


def import_caches(
    plan: ImportPlan, path: Path, on_rows: Callable[[int], None] = lambda rows: None
) -> None:
    """Writes what is still to write.

    `on_rows` is told the rows written so far: first those of earlier runs, then after each block.
    """
    with PartWriter(path, plan.schema) as writer:
        on_rows(writer.rows)
        for first, stop in _blocks(plan, writer.cursor):
            writer.append(_block(plan, first, stop), stop)
            on_rows(writer.rows)
        writer.finish()


def _blocks(plan: ImportPlan, done: int) -> Iterator[tuple[int, int]]:
    """Documents [first, stop) of each block, from document `done` on."""
    ends = plan.ends
    while done < len(ends):
        before = int(ends[done - 1]) if done else 0
        limit = before + plan.schema.chunk_rows
        stop = max(done + 1, int(np.searchsorted(ends, limit, side="right")))
        yield done, stop
        done = stop


def _block(plan: ImportPlan, first: int, stop: int) -> Block:
    """Documents [first, stop) with their rows."""
    edges = np.append(plan.ends[first - 1] if first else 0, plan.ends[first:stop])
    start, end = int(edges[0]), int(edges[-1])
    tokens = {model: _ids(plan, model, start, end) for model in plan.schema.models}
    transcripts = [
        _transcript(plan, tokens, low, high, start) for low, high in pairwise(edges.tolist())
    ]
    counts = dict.fromkeys(plan.schema.models, end - start)
    return Block(
        texts=[transcript.text for transcript in transcripts],
        labels=[plan.label] * len(transcripts),
        sources=[plan.schema.sources[0]] * len(transcripts),
        activations={name: cache.read(start, end) for name, cache in plan.caches.items()},
        document=np.repeat(np.arange(stop - first, dtype=np.int32), np.diff(edges)),
        char_start=np.concatenate([transcript.start for transcript in transcripts]),
        char_end=np.concatenate([transcript.end for transcript in transcripts]),
        tokens=tokens,
        tokens_read=counts,
        tokens_paired=counts,
    )


def _transcript(
    plan: ImportPlan, tokens: dict[str, np.ndarray], low: int, high: int, start: int
) -> Transcript:
    """Text of rows [low, high) of the caches; the block's first row is `start`."""
    if plan.reference is None:
        return spell_rows(low, high)
    ids = tokens[plan.reference][low - start : high - start].tolist()
    if plan.decoder is None:
        return spell([str(number) for number in ids])
    return decode(ids, plan.decoder)


def _ids(plan: ImportPlan, model: str, start: int, stop: int) -> np.ndarray:
    """Token ids of rows [start, stop), int32 (rows,); zeros where there are none."""
    if model not in plan.tokens:
        return np.zeros(stop - start, np.int32)
    return plan.tokens[model][start:stop].numpy().astype(np.int32)
