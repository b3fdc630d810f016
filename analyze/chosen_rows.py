"""Reads chosen rows of a store: their activations, their columns, a feature's codes on each.

Rows are read in storage order, each once; what is read of a chunk is copied.
R rows, N pairs of a row and a feature.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from analyze.subject import Subject
from store.loader import Batch
from store.reader import Store
from train.dictionary.codes import SparseCodes
from train.dictionary.narrow import narrowed


def activations_at(
    subject: Subject,
    rows: Int64[np.ndarray, " pairs"],
    features: Int64[np.ndarray, " pairs"],
    batch_rows: int,
    on_share: Callable[[float], None] = lambda share: None,
) -> Float32[np.ndarray, " pairs"]:
    """The activation of each pair's feature on its row; 0 where it does not fire.

    Encodes every row once, `batch_rows` at a time, to the features asked for alone where their
    codes need no others; on_share is told of each batch what share of all rows it is.
    """
    own = sorted_unique(features)
    dictionary = narrowed(subject.dictionary, torch.from_numpy(own))
    if dictionary is None:
        dictionary, own = subject.dictionary, np.arange(subject.features)
    needed_R = sorted_unique(rows)
    places_N = np.searchsorted(needed_R, rows)
    by_place_N = np.argsort(places_N, kind="stable")
    found_N = np.zeros(len(rows), np.float32)
    for start in range(0, len(needed_R), batch_rows):
        batch = take_rows(subject, needed_R[start : start + batch_rows])
        codes = dictionary.encode(subject.view(batch))
        first, last = np.searchsorted(places_N, [start, start + batch_rows], sorter=by_place_N)
        here = by_place_N[first:last]
        places = np.searchsorted(own, features[here])
        wanted = (places_N[here] - start) * len(own) + places
        found_N[here] = code_values(codes, torch.from_numpy(wanted)).float().cpu().numpy()
        on_share(len(batch.rows) / len(needed_R))
    return found_N


def sorted_unique(values: Int64[np.ndarray, " some"]) -> Int64[np.ndarray, " each"]:
    """Each value once, ascending; numpy's own hashes them, which takes ten times as long."""
    ordered = np.sort(values)
    return ordered[np.diff(ordered, prepend=ordered[:1] - 1) != 0]


def code_values(codes: SparseCodes, flat: Int64[Tensor, " pairs"]) -> Float[Tensor, " pairs"]:
    """Values at positions of the flattened (batch, features) matrix; 0 where there is no entry."""
    entries, wanted = codes.pattern.flat, flat.to(codes.values.device)
    if not len(entries):
        return codes.values.new_zeros(len(wanted))
    place = torch.searchsorted(entries, wanted).clamp(max=len(entries) - 1)
    return torch.where(entries[place] == wanted, codes.values[place], 0)


def take_rows(subject: Subject, rows: Int64[np.ndarray, " rows"]) -> Batch:
    """Ascending rows at the dictionary's hookpoints, in raw units."""
    spans = _by_chunk(subject.store, rows)
    taken = {}
    for hookpoint in subject.dictionary.hookpoints:
        parts = []
        for chunk, local in spans:
            low, high = int(local[0]), int(local[-1]) + 1
            stored = subject.store.activations(hookpoint.name, chunk, low, high)
            parts.append(stored.index_select(0, torch.from_numpy(local - low)))
        taken[hookpoint.name] = torch.cat(parts)
    return Batch(taken, rows)


def take_column(
    store: Store, name: str, rows: Int64[np.ndarray, " rows"]
) -> Int64[np.ndarray, " rows"]:
    """A row column at ascending rows."""
    parts = [store.column_chunk(name, chunk)[local] for chunk, local in _by_chunk(store, rows)]
    return np.concatenate([np.zeros(0, np.int64), *parts])


def _by_chunk(store: Store, rows: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """(chunk, rows within it) of ascending rows, for every chunk that has some."""
    before = store.chunk_rows_before
    chunks, starts = np.unique(np.searchsorted(before, rows, "right") - 1, return_index=True)
    parts = np.split(rows, starts[1:])
    return [(c, part - before[c]) for c, part in zip(chunks.tolist(), parts, strict=True)]
