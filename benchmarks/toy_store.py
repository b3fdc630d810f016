"""Rows of a toy model as a real store: bfloat16, documents of 256 rows with a text of no meaning.

Costs what sampling costs (benchmarks/toy_model.py) plus writing 2 bytes per coordinate: a row of
256 + 256 is 1 KB. The same model, rows and seed give the same store.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from benchmarks.toy_model import BLOCK_ROWS, MODELS, ToyModel, ToyRows
from store.block import Block
from store.layout import default_chunk_rows, default_column_chunks
from store.reader import Store
from store.schema import Hookpoint, StoreSchema
from store.writer import PartWriter

HOOKPOINTS = tuple(f"{model}.toy" for model in MODELS)
DOCUMENT_ROWS = 256


def toy_store(
    path: Path,
    toy: ToyModel,
    rows: int,
    seed: int = 0,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> Store:
    """The store at `path`: written if it is not complete, opened if it is.

    One that was cut short goes on behind its last commit. `on_rows` is told rows as they are done.
    Raises StoreError if another toy model's store lies there.
    """
    schema = toy_schema(toy, rows, seed)
    commit_rows = max(schema.chunk_rows, BLOCK_ROWS)
    with PartWriter(path, schema, commit_rows=commit_rows) as writer:
        if not writer.complete:
            done = writer.rows
            first = 0
            for block in toy.blocks(rows, seed):
                size = len(block.x_BD[MODELS[0]])
                if first >= done:
                    writer.append(_block(block, first), first + size)
                first += size
                on_rows(size)
            writer.finish()
    return Store(path)


def toy_schema(toy: ToyModel, rows: int, seed: int) -> StoreSchema:
    """What such a store says of itself; its configuration is the toy model's specification."""
    hookpoints = tuple(
        Hookpoint(name, model, width)
        for name, model, width in zip(HOOKPOINTS, MODELS, toy.spec.widths, strict=True)
    )
    chunk_rows = default_chunk_rows(hookpoints)
    made = {**asdict(toy.spec), "widths": list(toy.spec.widths), "rows": rows, "rows_seed": seed}
    return StoreSchema(
        hookpoints,
        chunk_rows,
        fingerprints={"toy": " ".join(f"{key}={value}" for key, value in made.items())},
        config=made,
        column_chunks=default_column_chunks(chunk_rows),
    )


def _block(rows: ToyRows, first: int) -> Block:
    """Documents of DOCUMENT_ROWS rows; every row is one character of its text."""
    count = len(rows.x_BD[MODELS[0]])
    document, within = np.divmod(np.arange(count, dtype=np.int32), DOCUMENT_ROWS)
    texts = [
        f"toy document of rows {first + start} on ".ljust(DOCUMENT_ROWS, ".")
        for start in range(0, count, DOCUMENT_ROWS)
    ]
    return Block(
        texts=texts,
        labels=["toy"] * len(texts),
        sources=["corpus"] * len(texts),
        activations={
            name: rows.x_BD[model].bfloat16()
            for name, model in zip(HOOKPOINTS, MODELS, strict=True)
        },
        document=document,
        char_start=within,
        char_end=within + 1,
        tokens={model: np.zeros(count, np.int32) for model in MODELS},
        tokens_read=dict.fromkeys(MODELS, count),
        tokens_paired=dict.fromkeys(MODELS, count),
    )
