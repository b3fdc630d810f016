"""The labels of a store's documents as the analysis uses them: few, and each with a name."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from store.documents import Documents

MOST = 32
UNLABELLED, OTHER = "(none)", "(other)"


@dataclass(frozen=True)
class Labels:
    """names of the labels (L,), and the index of each document's label (documents,)."""

    names: list[str]
    of_document: np.ndarray


def read_labels(documents: Documents) -> Labels:
    """Labels in the order of first appearance; beyond 32 the rarer ones count as one, (other)."""
    names = [name or UNLABELLED for name in documents.label_names]
    if len(names) <= MOST:
        return Labels(names, documents.labels)
    counts = np.bincount(documents.labels, minlength=len(names))
    kept = np.sort(np.argsort(-counts, kind="stable")[: MOST - 1])
    index = np.full(len(names), len(kept), np.int32)
    index[kept] = np.arange(len(kept))
    return Labels([*(names[number] for number in kept), OTHER], index[documents.labels])
