"""Rows and bytes that are said before a harvest, beside those that it then has."""

from collections import namedtuple

import numpy as np
import pytest
import torch

from harvest.forecast import Forecast
from harvest.room import refuse_without_room, store_bytes
from pipeline.errors import StoreError
from store.block import Block
from store.schema import Hookpoint, StoreSchema
from store.writer import PartWriter


def schema(codec="none", parts=1, chunk_rows=16) -> StoreSchema:
    return StoreSchema(
        (Hookpoint("a.mid", "a", 64),), chunk_rows, {"a": "0"}, {}, codec=codec, parts=parts
    )


def block(rows: int, documents: int) -> Block:
    """`rows` rows in `documents` documents of ten characters."""
    return Block(
        texts=["x" * 10] * documents,
        labels=[""] * documents,
        sources=["corpus"] * documents,
        activations={"a.mid": torch.randn(rows, 64).to(torch.bfloat16)},
        document=np.sort(np.arange(rows) % documents).astype(np.int32),
        char_start=np.zeros(rows, np.int32),
        char_end=np.ones(rows, np.int32),
        tokens={"a": np.zeros(rows, np.int32)},
        tokens_read={"a": rows},
        tokens_paired={"a": rows},
    )


@pytest.mark.parametrize("codec", ["none", "int8"])
@pytest.mark.parametrize(("rows", "parts"), [(1, 1), (16, 1), (100, 3)])
def test_bytes_are_those_of_the_chunk_files(codec, rows, parts, tmp_path):
    made = schema(codec, parts)
    share = -(-rows // parts)
    for part in range(parts):
        with PartWriter(tmp_path / "store.zarr", made, part) as writer:
            writer.append(block(share, 5), 5)
            writer.finish()
    files = [file for file in tmp_path.rglob("*") if file.is_file() and "c" in file.parts]
    written = sum(file.stat().st_size for file in files if "commits" not in file.parts)
    assert store_bytes(made, Forecast(5 * parts, rows, (rows,), 50 * parts)) == written


def test_what_is_written_needs_no_more_room(tmp_path, monkeypatch):
    made = schema(chunk_rows=1024)
    path = tmp_path / "store.zarr"
    found = Forecast(100, 100_000, (100_000,), 1000)
    free = store_bytes(made, found) // 2
    monkeypatch.setattr("shutil.disk_usage", lambda _: namedtuple("usage", "free")(free))
    with pytest.raises(StoreError, match=r"are to be written and .* free space"):
        refuse_without_room(path, made, found)
    with PartWriter(path, made) as writer:
        writer.append(block(60_000, 60), 60)
        writer.finish()
    refuse_without_room(path, made, found)
