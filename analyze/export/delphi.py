"""A cache of activations as EleutherAI's Delphi reads it, for its explainers and scorers.

The format is that of Delphi 0.1.1 (github.com/EleutherAI/delphi at 3c2e139, November 2025:
delphi/latents/cache.py writes it, loader.py's LatentDataset reads it). Per hookpoint a folder with
`config.json` (its `model_name` gives the tokenizer) and, per range of features,
`FIRST_LAST.safetensors`: `locations` (n, 3) uint32, which are sequence, position and
feature less FIRST; `activations` (n,); `tokens` (sequences, ctx_len). Delphi writes activations as
float16 and reads any float: here they are float32, scaled units, which cannot overflow.

Delphi reads every folder of the root and takes one hookpoint's tokens for all, so a root holds one
hookpoint. Cost: one encoder pass over the store (nothing is decoded); see `shards` for the bytes.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64

from analyze.export.sequences import Sequences, Texts, TokenLayer
from analyze.export.shards import Shards, edges_of
from analyze.subject import Subject
from analyze.sweep.gather import OnRows
from harvest.models.texts import TextReader
from pipeline.errors import ConfigError, StoreError
from store.files import make_folder, read_json, write_json
from store.reader import Store
from store.sweep import sweep

MARK = "crossdiff"  # key of config.json that makes a folder one of ours
BUILDING = ".crossdiff-unfinished"
MIN_EXAMPLES = 200
"""Windows with the feature that Delphi asks for (ConstructorConfig.min_examples)."""


@dataclass(frozen=True)
class DelphiSpec:
    """What is exported: whose tokens, which features; model_name: for Delphi's tokenizer.

    separator: the token between documents, None for none; splits: how many files; reader: of the
    model's texts, for tokens without a row (None: these are missing).
    """

    model: str
    model_name: str
    features: Int64[np.ndarray, " chosen"]
    ctx_len: int = 256
    separator: int | None = None
    splits: int = 5
    reader: TextReader | None = None


@dataclass(frozen=True)
class DelphiCache:
    """What was written: hookpoint (the folder's name), files, and how much is in them.

    rare: chosen features that fire on fewer tokens than Delphi asks windows for; not_whole:
    documents of which only the tokens that have rows are there.
    """

    hookpoint: str
    files: list[Path]
    sequences: Sequences
    entries: int
    features: int
    rare: int
    not_whole: int


def export_delphi(
    subject: Subject,
    spec: DelphiSpec,
    root: Path,
    batch_rows: int,
    on_rows: OnRows = lambda rows: None,
) -> DelphiCache:
    """Writes the cache below `root`; an earlier one is replaced once the new one is whole.

    Raises ConfigError if `root` holds something else, StoreError if there are no tokens, or not
    enough for one sequence.
    """
    if not len(spec.features):
        raise ConfigError("--features: none is left; give all, or numbers such as 3,17,100-200")
    hookpoint = next(h.name for h in subject.dictionary.hookpoints if h.model == spec.model)
    target = root / hookpoint
    _refuse_foreign(root, target)
    _refuse_without_tokens(subject.store, spec.model)
    building = root.with_name(root.name + BUILDING)
    shutil.rmtree(building, ignore_errors=True)
    make_folder(building)
    shards = Shards(building, edges_of(spec.features, subject.features, spec.splits), spec.ctx_len)
    try:
        fires, not_whole = _fill(subject, spec, shards, batch_rows, on_rows)
        sequences = _whole_sequences(subject.store, shards)
        written, entries = shards.write()
        shards.close()
        write_json(
            building / "config.json", _config(subject, spec, sequences, len(written), not_whole)
        )
        make_folder(root)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(building, target)
    finally:
        shards.close()
        shutil.rmtree(building, ignore_errors=True)
    files = [*(target / file.name for file in written), target / "config.json"]
    rare = int((fires[spec.features] < MIN_EXAMPLES).sum())
    return DelphiCache(hookpoint, files, sequences, entries, len(spec.features), rare, not_whole)


@torch.no_grad()
def _fill(
    subject: Subject, spec: DelphiSpec, shards: Shards, batch_rows: int, on_rows: OnRows
) -> tuple[Int64[np.ndarray, " features"], int]:
    """One pass over the store; how often each chosen feature fires, documents not whole."""
    store, dictionary = subject.store, subject.dictionary
    texts = Texts(store, spec.model, spec.reader)
    layer = TokenLayer(store, spec.model, spec.separator, texts)
    chosen = torch.zeros(subject.features, dtype=torch.bool, device=subject.device)
    chosen[torch.from_numpy(spec.features).to(subject.device)] = True
    fires = np.zeros(subject.features, np.int64)
    for batch in sweep(store, batch_rows):
        placed = layer.place(store.chunk_of(int(batch.rows[0])), batch.rows)
        shards.add_tokens(placed.tokens)
        codes = dictionary.encode(batch.activations)
        kept = chosen[codes.pattern.columns]
        features = codes.pattern.columns[kept].cpu().numpy()
        rows = codes.pattern.rows[kept].cpu().numpy()
        shards.add_entries(features, placed.of_rows[rows], codes.values[kept].float().cpu().numpy())
        fires += np.bincount(features, minlength=subject.features)
        on_rows(len(batch.rows))
    return fires, texts.not_whole


def _whole_sequences(store: Store, shards: Shards) -> Sequences:
    """Raises StoreError if there is not one."""
    found = shards.sequences
    if not found.count:
        raise StoreError(
            f"{store.path}: its {found.left_out} tokens do not fill one sequence of "
            f"{found.ctx_len}; give a smaller --ctx-len"
        )
    return found


def _refuse_without_tokens(store: Store, model: str) -> None:
    """Raises StoreError if every id is 0, which an import writes for a model without ids."""
    if not any(store.column_chunk(f"token_{model}", chunk).any() for chunk in range(store.chunks)):
        raise StoreError(
            f"{store.path}: has no token ids of model {model}; give another --model, or import the "
            "store with them"
        )


def _config(
    subject: Subject, spec: DelphiSpec, sequences: Sequences, splits: int, not_whole: int
) -> dict[str, Any]:
    """What Delphi's CacheConfig says, under its names, and what this cache was made of."""
    return {
        "dataset_repo": str(subject.store.path),
        "dataset_split": "",
        "dataset_name": "",
        "dataset_column": "text",
        "batch_size": 1,
        "cache_ctx_len": sequences.ctx_len,
        "ctx_len": sequences.ctx_len,
        "n_tokens": sequences.positions,
        "n_splits": splits,
        "model_name": spec.model_name,
        MARK: {
            "dictionary": str(subject.folder),
            "hookpoints": [h.name for h in subject.dictionary.hookpoints],
            "model": spec.model,
            "tokens": "all up to a document's last row; those without a row have no activation",
            "rows": subject.store.rows,
            "documents_of_rows_only": not_whole,
            "separator": spec.separator,
            "features": len(spec.features),
            "units": "scaled",
        },
    }


def _refuse_foreign(root: Path, target: Path) -> None:
    """Raises ConfigError unless `root` is new, empty, or holds an earlier export alone."""
    if not root.exists():
        return
    if not root.is_dir():
        raise ConfigError(f"--out: {root} is a file; Delphi's cache is a folder, name a new one")
    others = sorted(entry.name for entry in root.iterdir() if entry != target)
    if others:
        raise ConfigError(
            f"--out: {root} holds {others[0]}; Delphi reads all that is in its folder as one "
            "model's hookpoints, so name a new one"
        )
    if target.exists() and not _is_ours(target):
        raise ConfigError(f"--out: {target} was not written by this command; name a new folder")


def _is_ours(folder: Path) -> bool:
    try:
        return MARK in read_json(folder / "config.json")
    except StoreError:
        return False
