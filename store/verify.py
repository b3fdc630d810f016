"""Checks a store: every byte against its checksum, every count and reference against the others.

Cost: one read of the whole store. Promises: a store that passes can be trained on and shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from pipeline.errors import StoreError
from store.chunks import check_chunk
from store.files import read_json
from store.reader import Part, Store
from store.schema import DOCUMENT_CHUNK, TEXT_CHUNK_BYTES, chunk_file


@dataclass
class VerifyResult:
    """What was read, whether the harvest came to its end, and every problem, one line each."""

    rows: int = 0
    bytes_read: int = 0
    complete: bool = True
    problems: list[str] = field(default_factory=list)


def verify(store: Store, on_chunk: Callable[[int], None] = lambda rows: None) -> VerifyResult:
    """Reads everything; `on_chunk` is told the rows of each chunk that was checked."""
    result = VerifyResult(complete=store.complete)
    if not store.parts:
        result.problems.append(f"{store.path / 'parts'}: holds no rows yet; run the harvest again")
    for chunk in range(store.chunks):
        rows = int(store.chunk_sizes[chunk])
        problems = len(result.problems)
        for file, shape, dtype in store.chunk_files(chunk):
            _collect(result, partial(_check_file, file, shape, dtype))
        if len(result.problems) == problems:
            _collect(result, partial(_check_references, store, chunk))
        result.rows += rows
        on_chunk(rows)
    for part in store.parts:
        for file, shape, dtype in _document_files(part):
            _collect(result, partial(_check_file, file, shape, dtype))
        _collect(result, partial(_check_shapes, store, part))
    for hookpoint in store.schema.hookpoints:
        count = store.statistics(hookpoint.name).count
        if count != store.rows:
            result.problems.append(
                f"{store.path}: statistics of {hookpoint.name} count {count} rows of {store.rows}"
            )
    return result


def _collect(result: VerifyResult, check: Callable[[], int]) -> None:
    try:
        result.bytes_read += check()
    except StoreError as error:
        result.problems.append(str(error))


def _check_file(file: Path, shape: tuple[int, ...], dtype: np.dtype) -> int:
    """One chunk file against its checksum; returns bytes read."""
    return check_chunk(file, shape, dtype).nbytes


def _check_references(store: Store, chunk: int) -> int:
    """Rows refer to documents that exist and to spans that run forwards; reads nothing anew."""
    documents = store.column_chunk("document", chunk)
    starts, ends = (store.column_chunk(name, chunk) for name in ("char_start", "char_end"))
    if len(documents) and documents.max() >= store.part_of_chunk(chunk).document_count:
        raise StoreError(f"{store.path}: chunk {chunk}: a row refers to a document not there")
    if np.any(np.diff(documents) < 0) or np.any(documents < 0):
        raise StoreError(f"{store.path}: chunk {chunk}: documents out of order")
    if np.any(starts < 0) or np.any(starts > ends):
        raise StoreError(f"{store.path}: chunk {chunk}: a row's characters run backwards")
    return 0


def _document_files(part: Part) -> Iterator[tuple[Path, tuple[int, ...], np.dtype]]:
    """File, shape and dtype of every chunk of the document columns."""
    documents, text_bytes = part.attributes["documents"], part.attributes["text_bytes"]
    columns = (
        ("text", np.uint8, TEXT_CHUNK_BYTES, text_bytes),
        ("text_end", np.int64, DOCUMENT_CHUNK, documents),
        ("label", np.int32, DOCUMENT_CHUNK, documents),
        ("hash", np.uint64, DOCUMENT_CHUNK, documents),
    )
    for name, dtype, chunk_length, length in columns:
        for chunk in range(-(-length // chunk_length)):
            file = chunk_file(part.folder / "documents" / name, chunk, 1)
            yield file, (chunk_length,), np.dtype(dtype)


def _check_shapes(store: Store, part: Part) -> int:
    """A finished part's arrays tell other zarr clients exactly the committed rows."""
    if not part.attributes["complete"]:
        return 0
    for hookpoint in store.schema.hookpoints:
        file = part.folder / "activations" / hookpoint.name / "zarr.json"
        shape = read_json(file).get("shape")
        if shape != [part.rows, hookpoint.width]:
            raise StoreError(f"{file}: shape {shape}, expected {[part.rows, hookpoint.width]}")
    return 0
