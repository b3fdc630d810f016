"""One activation cache of the dictionary_learning forks: a hookpoint's rows in raw shard files.

    <root>/<model>/<dataset>[/<split>]/tokens.pt            (rows,) integers
    <root>/<model>/<dataset>[/<split>]/sequence_ranges.pt   first row of each sequence, then rows
    <root>/<model>/<dataset>[/<split>]/<submodule>_<io>/config.json
                                                       /shard_0.memmap  values, C order, no header
                                                       /shard_0.meta    {"shape", "dtype"}

Opening costs the small JSON files and one stat per shard; rows are read where they are asked for.
mean.pt and std.pt are ignored: they were accumulated in the storage dtype.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import StoreError
from store.cache_shard import Shard, open_shard, read_object
from store.tensor_file import read_integers

# Of config.json only these travel into a store: forks add keys that hold local paths.
RECORDED = (
    *("batch_size", "context_len", "shard_size", "d_model", "shuffle_shards", "io"),
    *("total_size", "shard_count", "store_tokens", "store_sequence_ranges"),
)
SAMPLE_BYTES = 1 << 16
HASH_ROWS = 1 << 20


@dataclass(frozen=True)
class Cache:
    """An opened cache; `recorded` is its config.json, `shards` are in the order of their rows."""

    folder: Path
    recorded: dict[str, Any]
    shards: tuple[Shard, ...]
    tokens_file: Path | None
    ranges_file: Path | None

    @cached_property
    def edges(self) -> np.ndarray:
        """First row of each shard, then the number of rows, int64 (shards + 1,)."""
        return np.cumsum([0, *(shard.rows for shard in self.shards)])

    @property
    def rows(self) -> int:
        """Rows in all shards."""
        return int(self.edges[-1])

    @property
    def width(self) -> int:
        """Values per row."""
        return self.shards[0].width

    @property
    def rounded(self) -> list[str]:
        """Dtypes among the shards that bfloat16 cannot hold exactly."""
        names = {str(s.dtype).removeprefix("torch.") for s in self.shards}
        return sorted(names - {"bfloat16"})

    @property
    def shuffled(self) -> bool:
        """Whether the rows were permuted, each hookpoint's in an order of its own."""
        return bool(self.recorded.get("shuffle_shards"))

    def read(self, start: int, stop: int) -> Tensor:
        """Rows [start, stop), rounded to bfloat16 (rows, width). Raises StoreError."""
        rows = torch.empty(stop - start, self.width, dtype=torch.bfloat16)
        first = int(np.searchsorted(self.edges, start, side="right")) - 1
        for shard, before in zip(self.shards[first:], self.edges[first:].tolist(), strict=False):
            if before >= stop:
                break
            low, high = max(start, before), min(stop, before + shard.rows)
            rows[low - start : high - start] = shard.read(low - before, high - before)
            finite = rows[low - start : high - start].isfinite().all(1)
            if not finite.all():
                bad = int((~finite).nonzero()[0]) + low - before
                raise StoreError(
                    f"{shard.file}: row {bad} has a value that is not finite in bfloat16; "
                    "collect the cache again, in bfloat16 or float32"
                )
        return rows

    def tokens(self) -> Tensor | None:
        """Token id of every row, mapped, integers (rows,); None where none were saved."""
        if self.tokens_file is None:
            return None
        tokens = read_integers(self.tokens_file)
        if tokens.shape != (self.rows,):
            raise StoreError(
                f"{self.tokens_file}: holds tokens of shape {tuple(tokens.shape)}, "
                f"{self.folder} has {self.rows} rows; give the two that were saved together"
            )
        return tokens

    def sequence_ends(self) -> np.ndarray | None:
        """Row behind the last of every sequence, int64 (sequences,); None where unknown."""
        if self.ranges_file is None:
            return None
        ranges = read_integers(self.ranges_file).to(torch.int64).numpy()
        if ranges.ndim == 2 and ranges.shape[1] == 2 and np.all(ranges[1:, 0] == ranges[:-1, 1]):
            ranges = np.append(ranges[:1, 0], ranges[:, 1])  # pairs of start and end
        good = ranges.ndim == 1 and len(ranges) > 1 and np.all(np.diff(ranges) >= 0)
        if not good or ranges[0] != 0 or ranges[-1] != self.rows:
            raise StoreError(
                f"{self.ranges_file}: {_excerpt(ranges)} are not sequences from row 0 to row "
                f"{self.rows} of {self.folder}; give the two that were saved together, or move "
                "the file away"
            )
        return ranges[1:]

    def fingerprint(self) -> str:
        """Hash of config, sizes, tokens and sequences, and of both ends of each shard."""
        total = hashlib.blake2b(digest_size=16)
        shapes = [(shard.rows, shard.width, str(shard.dtype)) for shard in self.shards]
        total.update(json.dumps([self.recorded, shapes], sort_keys=True).encode())
        for shard in self.shards:
            with shard.file.open("rb") as file:
                total.update(file.read(SAMPLE_BYTES))
                file.seek(max(0, shard.file.stat().st_size - SAMPLE_BYTES))
                total.update(file.read(SAMPLE_BYTES))
        for values in (self.tokens(), self.sequence_ends()):
            for start in range(0, 0 if values is None else len(values), HASH_ROWS):
                piece = np.asarray(values[start : start + HASH_ROWS], np.int64)  # type: ignore[index]
                total.update(piece.tobytes())
        return f"blake2b:{total.hexdigest()}"


def open_cache(folder: Path) -> Cache:
    """Opens the cache in `folder`, looking through its files. Raises StoreError."""
    config = read_object(
        folder / "config.json",
        "name the folder <submodule>_<io> of an activation cache; it appears when a collection "
        "has finished",
    )
    shard_count, rows = _count(folder, config, "shard_count"), _count(folder, config, "total_size")
    width = _count(folder, config, "d_model")
    shards = tuple(open_shard(folder, number, width) for number in range(shard_count))
    found = sum(shard.rows for shard in shards)
    if not shards or found != rows or not rows:
        raise StoreError(
            f"{folder}: {shard_count} shards hold {found} rows, config.json says {rows}; "
            "copy the cache again, or finish its collection"
        )
    return Cache(
        folder,
        {key: config[key] for key in RECORDED if isinstance(config.get(key), int | str)},
        shards,
        _beside(folder, config, "store_tokens", "tokens.pt"),
        _beside(folder, config, "store_sequence_ranges", "sequence_ranges.pt"),
    )


def _beside(folder: Path, config: dict[str, Any], key: str, name: str) -> Path | None:
    """The file that all hookpoints of a collection share; None if there is none."""
    wanted = config.get(key)
    if wanted is False:  # what lies there is of another collection
        return None
    # The first forks read it from the hookpoint's own folder.
    for file in (folder.parent / name, folder / name):
        if file.is_file():
            return file
    if wanted and name == "tokens.pt":
        raise StoreError(
            f"{folder.parent / name}: no such file, but {key} is set in {folder / 'config.json'}; "
            "copy it there, or set that to false to go without token ids"
        )
    return None


def _count(folder: Path, config: dict[str, Any], key: str) -> int:
    value = config.get(key)
    if type(value) is not int or value < 1:
        raise StoreError(
            f"{folder / 'config.json'}: {key} is {value!r}, expected a number of at least 1; "
            "name the folder of an activation cache"
        )
    return value


def _excerpt(values: np.ndarray) -> str:
    flat = values.reshape(-1)
    shown = ", ".join(map(str, flat[:3].tolist()))
    return f"[{shown}, ..., {flat[-1]}]" if len(flat) > 3 else f"[{shown}]"
