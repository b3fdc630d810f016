"""One pass over a store with a dictionary in inference mode, feeding all accumulators.

Cost: the dictionary's forward pass per row plus O(active entries); memory does not grow with the
store. Nothing is estimated: every row is seen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from analyze.accumulators import Entries, FeatureSums, TopRows
from analyze.config import AnalyzeConfig
from analyze.labels import Labels, read_labels
from pipeline.errors import DictionaryError
from store.loader import Batch
from store.reader import Store
from store.sweep import sweep
from train.dictionary.codes import SparseCodes
from train.dictionary.crosscoder import Crosscoder
from train.evaluate import VarianceExplained, reconstruct


@dataclass(frozen=True)
class SweepResult:
    """What one pass gives. `fve` and `l0` are of held-out documents, None if there are none."""

    sums: FeatureSums
    top: TopRows
    labels: Labels
    fve: dict[str, float | None]
    l0: float | None
    held_out_rows: int


def run_sweep(
    store: Store,
    dictionary: Crosscoder,
    config: AnalyzeConfig,
    validation_fraction: float,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> SweepResult:
    """Reads every row once. Raises DictionaryError if the dictionary does not fit the store."""
    check_fit(store, dictionary)
    features = dictionary.partition.features
    labels = read_labels(store.documents)
    held_out = store.documents.validation_mask(validation_fraction)
    sums = FeatureSums(features, len(labels.names))
    top = TopRows(features, config.contexts)
    variance = {
        hookpoint.name: VarianceExplained(hookpoint.name) for hookpoint in dictionary.hookpoints
    }
    active = rows = 0
    for batch in sweep(store, config.batch_rows):
        documents = _documents_of(store, batch)
        codes, reconstructions = reconstruct(dictionary, batch.activations)
        entries = _entries(codes, batch, documents)
        sums.update(entries, labels.of_document[entries.documents], labels.of_document[documents])
        top.update(entries)
        kept = held_out[documents]
        if kept.any():
            mask = torch.from_numpy(kept)
            for name, accumulator in variance.items():
                x_hat = reconstructions[name]
                accumulator.update(batch.activations[name][mask], x_hat[mask.to(x_hat.device)])
            active += int(held_out[entries.documents].sum())
            rows += int(kept.sum())
        on_rows(len(batch.rows))
    fve: dict[str, float | None] = {name: accumulator.fve for name, accumulator in variance.items()}
    return SweepResult(sums, top, labels, fve, active / rows if rows else None, rows)


def check_fit(store: Store, dictionary: Crosscoder) -> None:
    """Raises DictionaryError unless the store has every hookpoint with the right width."""
    for hookpoint in dictionary.hookpoints:
        stored = store.hookpoint(hookpoint.name)
        if stored.width != hookpoint.width:
            raise DictionaryError(
                f"{store.path}: {hookpoint.name} has width {stored.width}, the dictionary "
                f"{hookpoint.width}; it was trained on another store"
            )


def _documents_of(store: Store, batch: Batch) -> np.ndarray:
    """Document of each row of a batch that lies within one chunk, int64 (batch,)."""
    chunk = int(np.searchsorted(store.chunk_rows_before, batch.rows[0], side="right")) - 1
    return store.document_chunk(chunk)[batch.rows - store.chunk_rows_before[chunk]]


def _entries(codes: SparseCodes, batch: Batch, documents: np.ndarray) -> Entries:
    """Active entries of a batch as flat arrays."""
    in_batch = codes.pattern.rows.cpu().numpy()
    return Entries(
        features=codes.pattern.columns.cpu().numpy(),
        values=codes.values.float().cpu().numpy(),
        rows=batch.rows[in_batch],
        documents=documents[in_batch],
    )
