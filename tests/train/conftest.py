"""A small store that a small dictionary can learn: sparse mixtures of fixed directions.

Two models of different widths read the same rows; of 20 concepts 3 are in `a` alone and 3 in `b`
alone. 48 documents of 50 rows, chunks of 128 rows. Built once per session, under 1 s.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from store.block import Block
from store.reader import Store
from store.schema import Hookpoint, StoreSchema
from store.writer import PartWriter
from train.config import TrainConfig

WIDTHS = {"a": 12, "b": 20}
CONCEPTS, ONLY = 20, 3
DOCUMENTS, DOCUMENT_ROWS = 48, 50


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """These sizes gain nothing from threads, and on a busy machine lose tenfold by them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def concept_rows(rows: int, seed: int) -> dict[str, torch.Tensor]:
    """Activations of both models: about three concepts a row, an offset and a little noise."""
    fixed = torch.Generator().manual_seed(99)
    random = torch.Generator().manual_seed(seed)
    active = torch.rand(rows, CONCEPTS, generator=random) < 3 / CONCEPTS
    strength = active * (0.5 + torch.rand(rows, CONCEPTS, generator=random))
    unseen = {"a": slice(CONCEPTS - ONLY, CONCEPTS), "b": slice(0, ONLY)}
    out = {}
    for model, width in WIDTHS.items():
        directions = torch.randn(CONCEPTS, width, generator=fixed)
        directions = 4 * directions / directions.norm(dim=1, keepdim=True)
        directions[unseen[model]] = 0
        noise = 0.05 * torch.randn(rows, width, generator=random)
        out[model] = (strength @ directions + 0.5 + noise).bfloat16()
    return out


def write_store(path: Path, seed: int = 0, documents: int = DOCUMENTS) -> Path:
    """A complete store of `documents` documents in one part."""
    schema = StoreSchema(
        hookpoints=tuple(Hookpoint(model, model, width) for model, width in WIDTHS.items()),
        chunk_rows=128,
        fingerprints={"corpus": f"synthetic-{seed}"},
        config={},
    )
    rows = documents * DOCUMENT_ROWS
    within = np.tile(np.arange(DOCUMENT_ROWS, dtype=np.int32), documents)
    with PartWriter(path, schema) as writer:
        writer.append(
            Block(
                texts=[f"document {number} of {seed}" for number in range(documents)],
                labels=["synthetic"] * documents,
                sources=["corpus"] * documents,
                activations=concept_rows(rows, seed),
                document=np.repeat(np.arange(documents, dtype=np.int32), DOCUMENT_ROWS),
                char_start=within,
                char_end=within + 1,
                tokens=dict.fromkeys(WIDTHS, within),
                tokens_read=dict.fromkeys(WIDTHS, rows),
                tokens_paired=dict.fromkeys(WIDTHS, rows),
            ),
            cursor=1,
        )
        writer.finish()
    return path


@pytest.fixture(scope="session")
def store_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("synthetic") / "store.zarr")


@pytest.fixture
def store(store_path: Path) -> Store:
    return Store(store_path)


def tiny(**changes: object) -> TrainConfig:
    """A run of a second: 60 steps of 64 rows, 40 features, dead after 640 rows."""
    settings: dict[str, object] = {
        "features": 40,
        "exclusive": {"a": 0.2, "b": 0.2},
        "k": 4,
        "k_start": 8,
        "k_anneal_steps": 20,
        "steps": 60,
        "batch_rows": 64,
        "lr": 3e-3,
        "warmup_steps": 5,
        "decay_start": 40,
        "dead_after_rows": 640,
        "threshold_start": 20,
        "threshold_beta": 0.9,
        "window_chunks": 4,
        "validation_fraction": 0.2,
        "validation_rows": 300,
        "validate_every": 20,
        "log_every": 5,
        "checkpoint_every": 10,
    }
    return TrainConfig.model_validate({**settings, **changes})


@pytest.fixture
def config() -> TrainConfig:
    return tiny()
