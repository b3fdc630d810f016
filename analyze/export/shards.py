"""Entries of chosen features, spread over files by feature: what Delphi calls splits.

A file `FIRST_LAST.safetensors` holds features FIRST to LAST (counted from FIRST inside), and the
files follow each other without a gap, which Delphi relies on to find a feature. Each holds about as
many of the chosen features as another, and all tokens again, as Delphi's own do.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64

from analyze.export.sequences import Sequences
from analyze.export.spool import Spool, write_safetensors


def edges_of(features: Int64[np.ndarray, " chosen"], total: int, splits: int) -> list[int]:
    """Where files of `total` features begin, and `total`: at most `splits` of them, none empty."""
    splits = min(splits, len(features))
    firsts = [len(features) * n // splits for n in range(1, splits)]
    return [0, *features[firsts].tolist(), total]


class Shards:
    """The files of one export, filled batch by batch and written at the end.

    Memory is bounded by a batch. Disk: 16 bytes per entry, and 4 per token and file; twice that
    while they are written.
    """

    def __init__(self, folder: Path, edges: list[int], ctx_len: int) -> None:
        self._folder, self._edges, self._ctx_len = folder, np.array(edges), ctx_len
        files = range(len(edges) - 1)
        self._locations = [Spool(self._part(n, "locations"), "uint32", (3,)) for n in files]
        self._activations = [Spool(self._part(n, "activations"), "float32") for n in files]
        self._tokens = Spool(folder / "tokens.part", "int32")
        self._last, self._of_last = -1, np.zeros(len(files), np.int64)  # entries of that sequence

    def add_tokens(self, tokens: np.ndarray) -> None:
        """The tokens that follow, int (positions,)."""
        self._tokens.append(tokens)

    def add_entries(
        self,
        features: Int64[np.ndarray, " entries"],
        positions: Int64[np.ndarray, " entries"],
        activations: Float32[np.ndarray, " entries"],
    ) -> None:
        """Entries in the order of their positions."""
        if not len(features):
            return
        files = np.searchsorted(self._edges, features, side="right") - 1
        order = np.argsort(files, kind="stable")
        cuts = np.searchsorted(files[order], np.arange(1, len(self._locations)))
        sequence, place = np.divmod(positions, self._ctx_len)
        columns = np.stack([sequence, place, features - self._edges[files]], axis=1)
        for number, here in enumerate(np.split(order, cuts)):
            self._locations[number].append(columns[here])
            self._activations[number].append(activations[here])
        if sequence[-1] != self._last:
            self._last, self._of_last = int(sequence[-1]), np.zeros_like(self._of_last)
        self._of_last += np.bincount(files[sequence == self._last], minlength=len(self._of_last))

    @property
    def sequences(self) -> Sequences:
        """What the tokens that have been added make."""
        count, left_out = divmod(self._tokens.length, self._ctx_len)
        return Sequences(count, self._ctx_len, left_out)

    def write(self) -> tuple[list[Path], int]:
        """Writes what is in whole sequences into the folder; the files, and how many entries."""
        if self._last == self.sequences.count:  # it is cut short
            for number, entries in enumerate(self._of_last.tolist()):
                self._locations[number].cut(entries)
                self._activations[number].cut(entries)
        self._tokens.reshape((self._ctx_len,))
        files = []
        for number, (first, end) in enumerate(zip(self._edges, self._edges[1:], strict=False)):
            arrays = {
                "locations": self._locations[number],
                "activations": self._activations[number],
                "tokens": self._tokens,
            }
            files.append(self._folder / f"{first}_{end - 1}.safetensors")
            write_safetensors(files[-1], arrays)
            self._locations[number].close()
            self._activations[number].close()
        return files, sum(spool.length for spool in self._activations)

    def close(self) -> None:
        """Removes what is no longer needed, or was never finished."""
        for spool in (*self._locations, *self._activations, self._tokens):
            spool.close()

    def _part(self, number: int, name: str) -> Path:
        return self._folder / f"{number}.{name}.part"
