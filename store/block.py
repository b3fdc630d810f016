"""What a writer is given at a time: some documents and their aligned rows."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from store.bfloat16 import all_finite
from store.chunks import to_numpy
from store.schema import is_words


@dataclass(frozen=True)
class Block:
    """Some documents, and the aligned rows that they gave.

    labels and sources: one per document, sources from those of the store's schema; activations:
    hookpoint name -> bfloat16 (rows, width); the row columns are int32 (rows,); `document` indexes
    `texts`; tokens_read and tokens_paired count text tokens per model; excluded: by reason, in
    words such as `duplicate documents`, how many were left out. There may be no rows, and no
    documents.
    """

    texts: list[str]
    labels: list[str]
    sources: list[str]
    activations: dict[str, Tensor]
    document: np.ndarray
    char_start: np.ndarray
    char_end: np.ndarray
    tokens: dict[str, np.ndarray]
    tokens_read: dict[str, int]
    tokens_paired: dict[str, int]
    excluded: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rows = len(self.document)
        columns = [self.char_start, self.char_end, *self.tokens.values()]
        assert all(len(values) == rows for values in columns)
        assert all(len(values) == rows for values in self.activations.values())
        assert len(self.labels) == len(self.sources) == len(self.texts)
        assert not rows or (self.document[0] >= 0 and self.document[-1] < len(self.texts))
        assert np.all(np.diff(self.document) >= 0)
        assert np.all((self.char_start >= 0) & (self.char_start <= self.char_end))
        assert all(is_words(reason) and count >= 0 for reason, count in self.excluded.items())


def first_non_finite(block: Block) -> tuple[str, int] | None:
    """Hookpoint and row of the block's first NaN or infinity; None if all is finite."""
    for hookpoint, activations in block.activations.items():
        if not all_finite(to_numpy(activations)):
            return hookpoint, int((~activations.isfinite().all(1)).nonzero()[0])
    return None


def encode_text(text: str) -> bytes:
    """UTF-8 that survives lone surrogates, which Python strings may hold and UTF-8 may not."""
    return text.encode("utf-8", errors="surrogatepass")


def document_hash(encoded: bytes) -> int:
    """A 64-bit hash of a document's text; which documents are held out follows from it."""
    return int.from_bytes(hashlib.blake2b(encoded, digest_size=8).digest(), "little")
