"""The texts behind the rows, read from the store itself: contexts need no tokenizer.

Texts lie as UTF-8 in one byte array per part; a document's text is decoded only when asked for.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from store.chunks import map_chunk
from store.schema import DOCUMENT_CHUNK, TEXT_CHUNK_BYTES, chunk_file


class Documents:
    """Documents of all parts, numbered in order; `parts` pairs a folder with its attributes."""

    def __init__(self, parts: list[tuple[Path, dict[str, Any]]]) -> None:
        self._parts = parts
        self._starts = np.cumsum([0, *(attributes["documents"] for _, attributes in parts)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def first_of_part(self, part: int) -> int:
        """Number of a part's first document."""
        return int(self._starts[part])

    def text(self, document: int) -> str:
        """Text of one document, exactly as it was read."""
        part = int(np.searchsorted(self._starts, document, side="right")) - 1
        local = document - int(self._starts[part])
        ends = self._text_ends[part]
        start = int(ends[local - 1]) if local else 0
        return self._bytes(part, start, int(ends[local])).decode("utf-8", errors="surrogatepass")

    @cached_property
    def label_names(self) -> list[str]:
        """Every label, in the order of first appearance."""
        return list(dict.fromkeys(name for _, attrs in self._parts for name in attrs["labels"]))

    @cached_property
    def labels(self) -> np.ndarray:
        """Index into `label_names` per document (documents,)."""
        numbers = {name: number for number, name in enumerate(self.label_names)}
        pieces = [np.zeros(0, np.int32)]
        for folder, attributes in self._parts:
            local = np.array([numbers[name] for name in attributes["labels"]], np.int32)
            pieces.append(local[_read(folder / "label", attributes["documents"], np.int32)])
        return np.concatenate(pieces)

    @cached_property
    def hashes(self) -> np.ndarray:
        """64-bit hash of each document's text, uint64 (documents,)."""
        pieces = [_read(folder / "hash", a["documents"], np.uint64) for folder, a in self._parts]
        return np.concatenate([np.zeros(0, np.uint64), *pieces])

    def validation_mask(self, fraction: float) -> np.ndarray:
        """Which documents are held out, bool (documents,): a function of their text alone."""
        if not 0 <= fraction < 1:
            raise ValueError(f"validation fraction {fraction} is not in [0, 1)")
        return self.hashes < np.uint64(int(fraction * 2**64))

    @cached_property
    def _text_ends(self) -> list[np.ndarray]:
        return [_read(folder / "text_end", a["documents"], np.int64) for folder, a in self._parts]

    def _bytes(self, part: int, start: int, stop: int) -> bytes:
        folder = self._parts[part][0] / "text"
        if start == stop:
            return b""
        first, last = start // TEXT_CHUNK_BYTES, (stop - 1) // TEXT_CHUNK_BYTES
        pieces = []
        for chunk in range(first, last + 1):
            mapped = map_chunk(
                chunk_file(folder, chunk, 1), (TEXT_CHUNK_BYTES,), np.dtype(np.uint8)
            )
            before = chunk * TEXT_CHUNK_BYTES
            pieces.append(mapped[max(0, start - before) : stop - before].tobytes())
        return b"".join(pieces)


def _read(array: Path, length: int, dtype: type) -> np.ndarray:
    """A whole column of documents (length,)."""
    chunks = -(-length // DOCUMENT_CHUNK)
    pieces = [
        map_chunk(chunk_file(array, chunk, 1), (DOCUMENT_CHUNK,), np.dtype(dtype))
        for chunk in range(chunks)
    ]
    return np.concatenate(pieces)[:length] if pieces else np.zeros(0, dtype)
