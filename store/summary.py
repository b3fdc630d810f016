"""What `store info` says about a store.

Costs a few small files per part, a few bytes per document, and a listing of the chunk files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from store.reader import Store
from store.schema import VERSION, Hookpoint, part_path


@dataclass(frozen=True)
class HookpointSummary:
    """Norms of a hookpoint's rows; `std` is the root of the summed variances of its coordinates.

    mean_norm is the norm of the mean row, so mean_norm**2 + std**2 is the mean squared norm.
    """

    name: str
    model: str
    width: int
    dtype: str
    norm_median: float
    norm_p99: float
    mean_norm: float
    std: float
    paired_fraction: float


@dataclass(frozen=True)
class StoreSummary:
    """How much a store holds, of what, and what it was made from.

    bytes are those on disk, plain_bytes those of the activations in bfloat16; missing and
    unfinished list parts by number; labels and sources count documents, excluded what the harvest
    left out.
    """

    path: str
    version: int
    rows: int
    documents: int
    complete: bool
    parts: int
    missing: list[int]
    unfinished: list[int]
    bytes: int
    plain_bytes: int
    codec: str
    chunk_rows: int
    hookpoints: list[HookpointSummary]
    labels: dict[str, int]
    sources: dict[str, int]
    excluded: dict[str, int]
    fingerprints: dict[str, str]
    config: dict[str, Any]


def summarize(path: Path) -> StoreSummary:
    """Reads the summary. Raises StoreError."""
    store = Store(path)
    schema = store.schema
    documents = store.documents
    unfinished = {part.folder for part in store.parts if not part.state.complete}
    return StoreSummary(
        path=str(path),
        version=VERSION,
        rows=store.rows,
        documents=len(documents),
        complete=store.complete,
        parts=schema.parts,
        missing=store.missing_parts,
        unfinished=[n for n in range(schema.parts) if part_path(path, n) in unfinished],
        bytes=sum(_sizes(path)),
        plain_bytes=2 * store.rows * sum(hookpoint.width for hookpoint in schema.hookpoints),
        codec=schema.codec,
        chunk_rows=schema.chunk_rows,
        hookpoints=[_hookpoint(store, hookpoint) for hookpoint in schema.hookpoints],
        labels=_counts(documents.labels, documents.label_names),
        sources=_counts(documents.sources, documents.source_names),
        excluded=store.excluded,
        fingerprints=schema.fingerprints,
        config=schema.config,
    )


def _counts(indices: np.ndarray, names: Sequence[str]) -> dict[str, int]:
    """How often each name is there; `indices` (documents,) point into `names`."""
    return dict(zip(names, np.bincount(indices, minlength=len(names)).tolist(), strict=True))


def _hookpoint(store: Store, hookpoint: Hookpoint) -> HookpointSummary:
    statistics = store.statistics(hookpoint.name)
    return HookpointSummary(
        name=hookpoint.name,
        model=hookpoint.model,
        width=hookpoint.width,
        dtype=hookpoint.dtype,
        norm_median=statistics.norm_quantile(0.5),
        norm_p99=statistics.norm_quantile(0.99),
        mean_norm=float(np.linalg.norm(statistics.mean)),
        std=float(np.sqrt(statistics.variance.sum())),
        paired_fraction=store.paired_fraction(hookpoint.model),
    )


def _sizes(path: Path) -> Iterator[int]:
    """Bytes of every file; one that cannot be looked at counts nothing."""
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                yield os.stat(os.path.join(folder, name)).st_size
            except OSError:
                continue
