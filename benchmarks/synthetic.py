"""Stores of noise for the benchmarks: two models, documents of 100 to 900 rows."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch

from store.block import Block
from store.layout import default_chunk_rows, default_column_chunks
from store.reader import Store
from store.schema import CodecName, Hookpoint, StoreSchema, part_path
from store.writer import PartWriter

BLOCK_ROWS = 1 << 15


def noise_store(
    path: Path,
    rows: int,
    widths: tuple[int, int],
    chunk_rows: int | None = None,
    parts: int = 1,
    codec: CodecName = "none",
) -> Store:
    """`rows` rows in `parts` parts, of which all but the first are copies of the first."""
    hookpoints = tuple(Hookpoint(name, name, w) for name, w in zip("ab", widths, strict=True))
    chunk_rows = chunk_rows or default_chunk_rows(hookpoints)
    column_chunks = default_column_chunks(chunk_rows)
    schema = StoreSchema(hookpoints, chunk_rows, {}, {}, codec, parts, column_chunks=column_chunks)
    generator = np.random.default_rng(0)
    noise = [torch.randn(2 * BLOCK_ROWS, h.width).bfloat16() for h in hookpoints]
    with PartWriter(path, schema, commit_rows=max(chunk_rows, BLOCK_ROWS)) as writer:
        while left := rows // parts - writer.rows_appended:
            lengths = _filling(min(left, BLOCK_ROWS), generator)
            cursor = writer.rows_appended
            writer.append(_block(schema, lengths, noise, f"{cursor}", generator), cursor)
        writer.finish()
    for part in range(1, parts):
        shutil.copytree(part_path(path, 0), part_path(path, part))
    return Store(path)


def _filling(rows: int, generator: np.random.Generator) -> np.ndarray:
    """Lengths of documents that have `rows` rows together."""
    ends = generator.integers(100, 900, rows // 100 + 1).cumsum()
    return np.diff([0, *ends[ends < rows], rows])


def _block(
    schema: StoreSchema,
    lengths: np.ndarray,
    noise: list[torch.Tensor],
    name: str,
    generator: np.random.Generator,
) -> Block:
    rows = int(lengths.sum())
    spans = np.concatenate([np.arange(length, dtype=np.int32) for length in lengths])
    first = int(generator.integers(0, len(noise[0])))
    index = torch.from_numpy((first + np.arange(rows)) % len(noise[0]))
    return Block(
        texts=[f"{name}.{n} ".ljust(length, "x") for n, length in enumerate(lengths)],
        labels=[""] * len(lengths),
        sources=["corpus"] * len(lengths),
        activations={
            h.name: values.index_select(0, index)
            for h, values in zip(schema.hookpoints, noise, strict=True)
        },
        document=np.repeat(np.arange(len(lengths), dtype=np.int32), lengths),
        char_start=spans,
        char_end=spans + 1,
        tokens={model: np.zeros(rows, np.int32) for model in schema.models},
        tokens_read=dict.fromkeys(schema.models, rows),
        tokens_paired=dict.fromkeys(schema.models, rows),
    )
