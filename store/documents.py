"""The texts behind the rows, read from the store itself: contexts need no tokenizer.

Texts lie as UTF-8 in one byte array per part; a document's text is decoded only when asked for,
and compared with its hash, so that what is shown is what was read.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np

from pipeline.errors import StoreError
from store.block import document_hash
from store.chunks import check_chunk, map_chunk
from store.layout import Layout
from store.part import PartState
from store.schema import DOCUMENT_CHUNK, TEXT_CHUNK_BYTES, chunk_file

TEXT_LAYOUT = Layout(TEXT_CHUNK_BYTES, (), np.dtype(np.uint8))
REMEDY = "see `store verify`; `store verify --repair` cuts the store before the damage"


class Documents:
    """Documents of all parts, numbered in order; `parts` pairs a folder with its part's state.

    source_names: what they were read from.
    """

    def __init__(self, parts: list[tuple[Path, PartState]], source_names: tuple[str, ...]) -> None:
        self.source_names = source_names
        self._parts = parts
        self._starts = np.cumsum([0, *(state.documents for _, state in parts)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def first_of_part(self, part: int) -> int:
        """Number of a part's first document."""
        return int(self._starts[part])

    def text(self, document: int) -> str:
        """Text of one document, exactly as it was read. Raises StoreError if it has changed."""
        part = int(np.searchsorted(self._starts, document, side="right")) - 1
        local = document - int(self._starts[part])
        ends = self._text_ends[part]
        start = int(ends[local - 1]) if local else 0
        encoded = self._bytes(part, start, int(ends[local]))
        if document_hash(encoded) != int(self.hashes[document]):
            folder = self._parts[part][0] / "text"
            raise StoreError(f"{folder}: text of document {local} has changed; {REMEDY}")
        return encoded.decode("utf-8", errors="surrogatepass")

    @cached_property
    def label_names(self) -> list[str]:
        """Every label, in the order of first appearance."""
        return list(dict.fromkeys(name for _, state in self._parts for name in state.labels))

    @cached_property
    def labels(self) -> np.ndarray:
        """Index into `label_names` per document (documents,)."""
        numbers = {name: number for number, name in enumerate(self.label_names)}
        pieces = [np.zeros(0, np.int32)]
        for folder, state in self._parts:
            found = _indices(folder, "label", state.documents, len(state.labels))
            pieces.append(np.array([numbers[name] for name in state.labels], np.int32)[found])
        return np.concatenate(pieces)

    @cached_property
    def sources(self) -> np.ndarray:
        """Index into `source_names` per document, int32 (documents,)."""
        names = len(self.source_names)
        pieces = [_indices(folder, "source", s.documents, names) for folder, s in self._parts]
        return np.concatenate([np.zeros(0, np.int32), *pieces])

    @cached_property
    def hashes(self) -> np.ndarray:
        """64-bit hash of each document's text, uint64 (documents,)."""
        pieces = [_read(folder / "hash", s.documents, np.uint64) for folder, s in self._parts]
        return np.concatenate([np.zeros(0, np.uint64), *pieces])

    def validation_mask(self, fraction: float) -> np.ndarray:
        """Which documents are held out, bool (documents,): a function of their text alone."""
        if not 0 <= fraction < 1:
            raise ValueError(f"validation fraction {fraction} is not in [0, 1)")
        return self.hashes < np.uint64(int(fraction * 2**64))

    @cached_property
    def row_ends(self) -> list[np.ndarray]:
        """Per part: its rows up to and including each document, int64 (documents,)."""
        return [_ends(folder / "row_end", s.documents, s.rows) for folder, s in self._parts]

    @cached_property
    def _text_ends(self) -> list[np.ndarray]:
        return [_ends(folder / "text_end", s.documents, s.text_bytes) for folder, s in self._parts]

    def _bytes(self, part: int, start: int, stop: int) -> bytes:
        folder = self._parts[part][0] / "text"
        if start == stop:
            return b""
        first, last = start // TEXT_CHUNK_BYTES, (stop - 1) // TEXT_CHUNK_BYTES
        pieces = []
        for chunk in range(first, last + 1):
            mapped = map_chunk(chunk_file(folder, chunk, 1), TEXT_LAYOUT)
            before = chunk * TEXT_CHUNK_BYTES
            pieces.append(mapped[max(0, start - before) : stop - before].tobytes())
        return b"".join(pieces)


def _read(array: Path, length: int, dtype: type) -> np.ndarray:
    """A whole column of documents (length,), compared with its checksums."""
    chunks = -(-length // DOCUMENT_CHUNK)
    layout = Layout(DOCUMENT_CHUNK, (), np.dtype(dtype))
    pieces = [check_chunk(chunk_file(array, chunk, 1), layout) for chunk in range(chunks)]
    return np.concatenate(pieces)[:length] if pieces else np.zeros(0, dtype)


def _indices(folder: Path, column: str, length: int, names: int) -> np.ndarray:
    """A column of indices into so many names, int32 (length,)."""
    found = _read(folder / column, length, np.int32)
    if len(found) and not 0 <= found.min() <= found.max() < names:
        raise StoreError(f"{folder / column}: a document has no {column}; {REMEDY}")
    return found


def _ends(array: Path, length: int, total: int) -> np.ndarray:
    """A column of ends (length,), which must not run backwards and must end at `total`."""
    ends = _read(array, length, np.int64)
    if (int(ends[-1]) if length else 0) != total or np.any(np.diff(ends, prepend=0) < 0):
        raise StoreError(f"{array}: ends do not rise to {total}; {REMEDY}")
    return ends
