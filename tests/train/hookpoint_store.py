"""A store of any hookpoints, whose rows are sparse mixtures of fixed directions."""

from pathlib import Path

import numpy as np
import torch

from store.block import Block
from store.schema import Hookpoint, StoreSchema
from store.writer import PartWriter

CONCEPTS, DOCUMENTS, DOCUMENT_ROWS = 12, 20, 32


def write_hookpoint_store(path: Path, hookpoints: dict[str, tuple[str, int]]) -> Path:
    """A complete store of 640 rows; `hookpoints`: name -> (model, width)."""
    schema = StoreSchema(
        hookpoints=tuple(Hookpoint(name, *where) for name, where in hookpoints.items()),
        chunk_rows=128,
        fingerprints={"corpus": "synthetic"},
        config={},
    )
    rows, models = DOCUMENTS * DOCUMENT_ROWS, {model for model, _ in hookpoints.values()}
    random = torch.Generator().manual_seed(0)
    active = torch.rand(rows, CONCEPTS, generator=random) < 3 / CONCEPTS
    strength = active * (0.5 + torch.rand(rows, CONCEPTS, generator=random))
    directions = {
        name: torch.randn(CONCEPTS, width, generator=random)
        for name, (_, width) in hookpoints.items()
    }
    within = np.tile(np.arange(DOCUMENT_ROWS, dtype=np.int32), DOCUMENTS)
    with PartWriter(path, schema) as writer:
        writer.append(
            Block(
                texts=[f"document {number}" for number in range(DOCUMENTS)],
                labels=["synthetic"] * DOCUMENTS,
                sources=["corpus"] * DOCUMENTS,
                activations={
                    name: (strength @ mine + 0.5).bfloat16() for name, mine in directions.items()
                },
                document=np.repeat(np.arange(DOCUMENTS, dtype=np.int32), DOCUMENT_ROWS),
                char_start=within,
                char_end=within + 1,
                tokens=dict.fromkeys(models, within),
                tokens_read=dict.fromkeys(models, rows),
                tokens_paired=dict.fromkeys(models, rows),
            ),
            cursor=1,
        )
        writer.finish()
    return path
