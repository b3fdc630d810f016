"""Accumulators on disk: one safetensors file each, replaced as a whole, bound to what made it.

A file that is damaged, or of another dictionary, store, setting or code, counts as not there: the
sweep makes it again.
"""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor

from analyze.sweep.accumulator import Accumulator
from store.files import json_bytes, write_atomic

OURS = ("analyze.", "train.", "store.")


@dataclass(frozen=True)
class Share:
    """Part `task` of `of` equal ones, by chunks of the store."""

    task: int = 0
    of: int = 1

    def chunks(self, chunks: int) -> range:
        """Which chunks of the store belong to it."""
        return range(self.task * chunks // self.of, (self.task + 1) * chunks // self.of)

    def file(self, folder: Path, name: str) -> Path:
        """Where an accumulator of this share is kept."""
        mark = "" if self.of == 1 else f".{self.task}of{self.of}"
        return folder / f"{name}{mark}.safetensors"


@dataclass(frozen=True)
class Saved:
    """An accumulator's sums over its share's chunks below `next_chunk`."""

    state: dict[str, Tensor]
    next_chunk: int


def key_of(fingerprint: str, accumulator: Accumulator, share: Share) -> str:
    """Hash of all that an accumulator's numbers depend on."""
    known = {"name": accumulator.name, "settings": accumulator.settings()}
    code = _code_of(type(accumulator).__module__)
    bound = {**known, "subject": fingerprint, "share": [share.task, share.of], "code": code}
    return hashlib.sha256(json_bytes(bound)).hexdigest()


@cache
def _code_of(module: str) -> str:
    """Hash of the sources of a module and of all of ours that it takes names from, and so on.

    So sums that an earlier version of a formula, of the encoder or of the reader made are not taken
    for this one's; those of a version that changed no more than a comment are made again, too.
    """
    found: set[str] = set()
    waiting = {module}
    while waiting:
        name = waiting.pop()
        found.add(name)
        values = vars(sys.modules[name]).values()
        named = {getattr(v, "__module__", None) or getattr(v, "__name__", None) for v in values}
        waiting |= {n for n in named if isinstance(n, str) and n.startswith(OURS)} - found
    sources = [Path(str(sys.modules[name].__file__)).read_bytes() for name in sorted(found)]
    return hashlib.sha256(b"".join(sources)).hexdigest()


def save(file: Path, key: str, accumulator: Accumulator, next_chunk: int) -> None:
    """Writes what has been summed up so far."""
    state = {name: value.detach().cpu().contiguous() for name, value in accumulator.state().items()}
    metadata = {"key": key, "next_chunk": str(next_chunk)}
    write_atomic(file, [safetensors.torch.save(state, metadata)])


def load(file: Path, key: str) -> Saved | None:
    """What was saved under this key; None where there is nothing of the kind."""
    try:
        with safetensors.safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
            if metadata.get("key") != key:
                return None
            state = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        return Saved(state, int(metadata["next_chunk"]))
    except (OSError, safetensors.SafetensorError, KeyError, ValueError):
        return None


def load_merged(folder: Path, fingerprint: str, accumulator: Accumulator) -> bool:
    """Absorbs the files of all tasks of one sweep; False where none is complete."""
    for last in folder.glob(f"{accumulator.name}.*of*.safetensors"):
        of = last.name.rsplit(".", 2)[1].partition("of")[2]
        if of.isdigit() and _absorb_all(folder, fingerprint, accumulator, int(of)):
            return True
    return False


def _absorb_all(folder: Path, fingerprint: str, accumulator: Accumulator, of: int) -> bool:
    shares = [Share(task, of) for task in range(of)]
    found = [
        load(share.file(folder, accumulator.name), key_of(fingerprint, accumulator, share))
        for share in shares
    ]
    whole = [one for one in found if one is not None and one.next_chunk < 0]
    if len(whole) < of:
        return False
    for one in whole:
        accumulator.absorb(one.state)
    return True
