"""Small random stores: several blocks, parts, labels, awkward text. About 30 ms a store."""

import os
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from store.block import Block
from store.reader import Store
from store.schema import Hookpoint, StoreSchema
from store.writer import PartWriter

from .caches import write_pair

TEXTS = [
    "",
    "plain words",
    "naïve 漢字 👩‍👩‍👧",
    "\r\n\ttabs",
    "lone \ud83d surrogate",
    "e\u0301\u0323",
    "\0",
]


@pytest.fixture(scope="session")
def make_schema():
    """Hookpoints `a.mid` and `b.mid` of different width, two sources, unless told otherwise."""

    def make(chunk_rows=16, widths=(6, 10), fingerprints=None, config=None, **more):
        hookpoints = (Hookpoint("a.mid", "a", widths[0]), Hookpoint("b.mid", "b", widths[1]))
        return StoreSchema(
            hookpoints,
            chunk_rows,
            fingerprints or {"a": "0f", "b": "1e"},
            config or {"seed": 1},
            **{"sources": ("web", "books"), **more},
        )

    return make


@pytest.fixture(scope="session")
def make_block(make_schema):
    """A random block; `lengths` are the rows of each of its documents."""

    def make(lengths, seed=0, labels=("prose", "code", ""), schema=None, scale=1.0):
        schema = schema or make_schema()
        generator = np.random.default_rng(seed)
        noise = torch.Generator().manual_seed(seed)
        rows = int(sum(lengths))
        texts = [TEXTS[(seed + number) % len(TEXTS)] for number in range(len(lengths))]
        texts = [text and f"{seed}.{n} {text}" for n, text in enumerate(texts)]
        last = np.repeat([len(text) for text in texts], lengths)
        start = np.minimum(generator.integers(0, 20, rows), last).astype(np.int32)
        end = np.minimum(start + generator.integers(0, 9, rows), last).astype(np.int32)
        return Block(
            texts=texts,
            labels=[labels[(seed + number) % len(labels)] for number in range(len(lengths))],
            sources=[schema.sources[(seed + n) % len(schema.sources)] for n in range(len(lengths))],
            activations={
                h.name: (scale * torch.randn(rows, h.width, generator=noise)).to(torch.bfloat16)
                for h in schema.hookpoints
            },
            document=np.repeat(np.arange(len(lengths)), lengths).astype(np.int32),
            char_start=start,
            char_end=end,
            tokens={m: generator.integers(0, 500, rows).astype(np.int32) for m in schema.models},
            tokens_read={"a": rows + 5, "b": rows + 2},
            tokens_paired={"a": rows, "b": rows},
            excluded={"duplicate documents": seed % 3, "rows among the first positions": 2},
        )

    return make


@pytest.fixture(scope="session")
def build_store(make_schema, make_block):
    """Builds a store from parts (each a list of blocks, or of blocks' document lengths)."""

    def build(path: Path, parts=(((5, 0, 9, 12), (), (0,), (20, 3), (1,) * 7),), schema=None):
        schema = replace(schema or make_schema(), parts=len(parts))
        for number, blocks in enumerate(parts):
            with PartWriter(path, schema, number) as writer:
                for cursor, block in enumerate(blocks):
                    if not isinstance(block, Block):
                        block = make_block(block, seed=100 * number + cursor, schema=schema)
                    writer.append(block, cursor + 1)
                writer.finish()
        return Store(path)

    return build


@pytest.fixture(scope="session")
def tree():
    """Every file beneath a folder with its bytes."""

    def read(folder: Path) -> dict[str, bytes]:
        files = [file for file in folder.rglob("*") if file.is_file()]
        return {str(file.relative_to(folder)): file.read_bytes() for file in files}

    return read


@pytest.fixture(scope="session")
def memory_folder(tmp_path_factory):
    """A folder in memory where the machine has one: renames over files are slow on a disk."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path_factory.mktemp("memory")
        return
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def large_store(build_store, make_schema, tmp_path_factory):
    """Two parts, 23 chunks of at most 16 rows, 60 documents, for reading only."""
    generator = np.random.default_rng(7)
    parts = [[tuple(generator.integers(0, 12, 10)) for _ in range(blocks)] for blocks in (4, 2)]
    return build_store(tmp_path_factory.mktemp("large") / "store.zarr", parts, make_schema())


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch):
    """What is durable when is tested in test_files.py by watching the calls."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(scope="session")
def flip():
    """Changes one byte in the middle of a file."""

    def change(file: Path) -> Path:
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 16
        file.write_bytes(data)
        return file

    return change


@pytest.fixture
def caches(tmp_path):
    """Caches of two models that read the same tokens."""
    return write_pair(tmp_path)
