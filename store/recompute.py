"""Attributes of a part from its commit log and its rows, bit by bit as its writer had them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from store.arrays import PartArray, part_arrays
from store.chunks import map_chunk, to_tensor
from store.commits import CommitLog
from store.part import PartState, TokenCounts
from store.schema import StoreSchema
from store.statistics import RowStatistics, merge


def recompute(folder: Path, schema: StoreSchema, log: CommitLog) -> PartState:
    """The part's state after the last line of `log`; the rows up to there must be good."""
    last = log.last
    blocks = [rows for commit in log.commits for rows in commit.blocks]
    arrays = {array.name: array for array in part_arrays(schema)}
    statistics = {
        h.name: merge(
            map(RowStatistics.of, _blocks(folder, arrays[f"activations/{h.name}"], blocks)),
            width=h.width,
        )
        for h in schema.hookpoints
    }
    return PartState(
        commits=last.number,
        rows=last.rows,
        documents=last.documents,
        text_bytes=last.text_bytes,
        log_bytes=len(log.content),
        cursor=last.cursor,
        complete=False,
        pending=(),
        labels=log.labels,
        excluded=last.excluded,
        tokens={
            model: last.tokens.get(model, TokenCounts(read=0, paired=0)) for model in schema.models
        },
        statistics=statistics,
    )


def _blocks(folder: Path, array: PartArray, blocks: list[int]) -> Iterator[Tensor]:
    """The rows of each block in turn, as they were appended."""
    size = array.layout.rows

    @lru_cache(maxsize=1)
    def stored(chunk: int) -> np.ndarray:
        return map_chunk(array.file(folder, chunk), array.layout)

    start = 0
    for rows in blocks:
        stop = start + rows
        pieces = [
            array.layout.from_stored(
                stored(chunk)[max(0, start - chunk * size) : stop - chunk * size]
            )
            for chunk in range(start // size, -(-stop // size))
        ]
        yield (
            torch.cat([to_tensor(piece) for piece in pieces])
            if pieces
            else torch.zeros(0, *array.layout.row_shape, dtype=torch.bfloat16)
        )
        start = stop
