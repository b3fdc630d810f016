"""What a block adds to the arrays and to the state of its part: pure functions of both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from pipeline.errors import StoreError
from store.block import Block, document_hash, encode_text
from store.part import PartState, added
from store.schema import StoreSchema
from store.statistics import RowStatistics, merge


def block_columns(block: Block, before: PartState, schema: StoreSchema) -> dict[str, np.ndarray]:
    """By name of its array, what the block adds to each column. Raises StoreError."""
    encoded = [encode_text(text) for text in block.texts]
    sizes = np.array([len(text) for text in encoded], np.int64)
    rows = np.bincount(block.document, minlength=len(block.texts)).astype(np.int64)
    labels = {label: number for number, label in enumerate(_labels(block, before))}
    per_row = {
        "document": block.document.astype(np.int64) + before.documents,
        "char_start": block.char_start,
        "char_end": block.char_end,
        **{f"token_{model}": block.tokens[model] for model in schema.models},
    }
    return {
        **{f"rows/{name}": _fitting_int32(name, values) for name, values in per_row.items()},
        "documents/text": np.frombuffer(b"".join(encoded), np.uint8),
        "documents/text_end": before.text_bytes + sizes.cumsum(),
        "documents/row_end": before.rows + rows.cumsum(),
        "documents/label": np.array([labels[label] for label in block.labels], np.int32),
        "documents/source": _sources(block, schema),
        "documents/hash": np.array([document_hash(text) for text in encoded], np.uint64),
    }


def state_after(
    block: Block,
    cursor: int,
    before: PartState,
    columns: Mapping[str, np.ndarray],
    statistics: Mapping[str, RowStatistics],
) -> PartState:
    """The part's state once the block is in it; `statistics` are those of its rows."""
    return replace(
        before,
        rows=before.rows + len(block.document),
        documents=before.documents + len(block.texts),
        text_bytes=before.text_bytes + len(columns["documents/text"]),
        cursor=cursor,
        labels=_labels(block, before),
        pending=(*before.pending, len(block.document)),
        excluded=added(before.excluded, block.excluded),
        tokens={
            model: counts.plus(block.tokens_read[model], block.tokens_paired[model])
            for model, counts in before.tokens.items()
        },
        statistics={
            name: merge([total, statistics[name]], width=len(total.mean))
            for name, total in before.statistics.items()
        },
    )


def _labels(block: Block, before: PartState) -> tuple[str, ...]:
    """Labels in the order of their first appearance."""
    return tuple(dict.fromkeys([*before.labels, *block.labels]))


def _sources(block: Block, schema: StoreSchema) -> np.ndarray:
    numbers = {source: number for number, source in enumerate(schema.sources)}
    strange = next((source for source in block.sources if source not in numbers), None)
    if strange is not None:
        known = ", ".join(schema.sources)
        raise StoreError(
            f"a document is of source {strange!r}, but the store was begun for {known}; "
            "give it one of these, or begin a store for this one too"
        )
    return np.array([numbers[source] for source in block.sources], np.int32)


def _fitting_int32(name: str, values: np.ndarray) -> np.ndarray:
    if len(values) and int(values.max()) > np.iinfo(np.int32).max:
        raise StoreError(f"{name} {values.max()} does not fit 32 bits; harvest more parts")
    return values.astype(np.int32)
