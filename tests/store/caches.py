"""Writes activation caches as the dictionary_learning forks lay them out, from plain tensors."""

import json
from pathlib import Path

import numpy as np
import torch

from store.config import StoreConfig
from store.import_plan import plan_import
from store.importer import check_target, import_caches
from store.reader import Store

ROWS = 40
TOKENS = torch.arange(ROWS) * 7 % 400
RANGES = torch.tensor([0, 9, 9, 10, 31, ROWS])
CONFIG = {"batch_size": 4, "context_len": 16, "shard_size": 100, "shuffle_shards": False}


def write_cache(
    folder: Path,
    rows: torch.Tensor,
    shard_rows=(),
    tokens: torch.Tensor | None = None,
    ranges: torch.Tensor | None = None,
    **config,
) -> Path:
    """A cache of `rows` (rows, width) in shards of these sizes, the last one taking the rest."""
    folder.mkdir(parents=True, exist_ok=True)
    edges = [0, *np.cumsum(shard_rows).tolist()]
    for number, (start, stop) in enumerate(zip(edges, [*edges[1:], len(rows)], strict=True)):
        values = rows[start:stop]
        raw = values.view(torch.int16) if rows.dtype == torch.bfloat16 else values
        raw.numpy().tofile(folder / f"shard_{number}.memmap")
        meta = {"shape": list(values.shape), "dtype": str(rows.dtype)}
        (folder / f"shard_{number}.meta").write_text(json.dumps(meta))
    for name, values in (("tokens.pt", tokens), ("sequence_ranges.pt", ranges)):
        if values is not None:
            torch.save(values, folder.parent / name)
    known = {
        "d_model": rows.shape[1],
        "io": folder.name.rsplit("_", 1)[-1],
        "total_size": len(rows),
        "shard_count": len(edges),
        "store_tokens": tokens is not None,
        "store_sequence_ranges": ranges is not None,
    }
    (folder / "config.json").write_text(json.dumps({**CONFIG, **known, **config}))
    return folder


def edit(file: Path, **changes) -> None:
    """Changes keys of a JSON file; None removes one."""
    value = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({key: entry for key, entry in value.items() if entry is not None}))


def random_rows(rows: int, width: int, seed: int, dtype=torch.bfloat16) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)).to(dtype)


def write_pair(root: Path) -> list[Path]:
    """Caches of `base` (width 6) and `chat` (10): the same tokens and sequences, other shards."""
    return [
        write_cache(
            root / model / "web/train/layer_1_out",
            random_rows(ROWS, width, seed),
            shards,
            TOKENS,
            RANGES,
        )
        for seed, (model, width, shards) in enumerate((("base", 6, (7, 20)), ("chat", 10, ())))
    ]


def run_import(folders, path, chunk_rows=16, document_rows=8, **options) -> Store:
    """The store that they are imported into."""
    plan = plan_import(folders, StoreConfig(chunk_rows=chunk_rows), document_rows, **options)
    check_target(plan, path)
    import_caches(plan, path)
    return Store(path)
