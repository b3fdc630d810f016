"""What each document was read from, from the writer to what users see."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest

from pipeline.errors import StoreError
from store.cli import main
from store.reader import Store
from store.writer import PartWriter

from .contents import forge, overwrite


@pytest.fixture
def blocks(make_block):
    return [
        [replace(make_block((5, 3, 9)), sources=["web", "books", "web"])],
        [replace(make_block((2,), seed=1), sources=["books"]), make_block(())],
    ]


@pytest.fixture
def store(build_store, blocks, tmp_path):
    return build_store(tmp_path / "store.zarr", blocks)


@pytest.fixture
def printed(monkeypatch, capsys):
    """What the program prints."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["store", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        assert not stop.value.code
        return capsys.readouterr().out

    return run


def test_every_document_keeps_the_name_of_its_source(store):
    names = [store.documents.source_names[number] for number in store.documents.sources]
    assert names == ["web", "books", "web", "books"]


def test_a_source_of_no_document_is_still_one_of_the_stores(build_store, make_schema, tmp_path):
    schema = make_schema(sources=("web", "books", "chats"))
    documents = build_store(tmp_path / "store.zarr", [[(3,)]], schema).documents
    assert (documents.source_names, documents.sources.tolist()) == (("web", "books", "chats"), [0])


def test_a_store_has_one_source_unless_told_otherwise(make_schema):
    schema = make_schema()
    assert type(schema)(schema.hookpoints, 16, {}, {}).sources == ("corpus",)


def test_a_source_that_the_store_was_not_begun_for_is_refused(make_schema, make_block, tmp_path):
    block = replace(make_block((2,)), sources=["chats"])
    with (
        PartWriter(tmp_path / "store.zarr", make_schema()) as writer,
        pytest.raises(StoreError, match=r"00000: .* 'chats', .* begun for web, books; give"),
    ):
        writer.append(block, 1)


@pytest.mark.parametrize(
    "sources", [[], ["web", "web"], [""], ["a\nb"], ["\x1b[2J"], ["x" * 201], [1], None]
)
def test_sources_that_are_no_distinct_words_are_refused(sources, store):
    forge(store.path, sources=sources)
    with pytest.raises(StoreError, match=r"zarr\.json: damaged store attributes \(sources"):
        Store(store.path)


@pytest.mark.parametrize("source", [-1, 2])
def test_a_source_that_is_not_there_is_refused(source, store):
    overwrite(store, 0, "documents/source", lambda values: np.put(values, 1, source))
    with pytest.raises(StoreError, match="documents/source: a document has no source"):
        _ = store.documents.sources


def test_info_counts_documents_by_source(store, printed):
    assert "documents by source: web 2, books 2" in printed("info", store.path)
    assert json.loads(printed("info", store.path, "--json"))["sources"] == {"web": 2, "books": 2}


def test_info_says_nothing_of_the_only_source(build_store, make_schema, tmp_path, printed):
    path = build_store(tmp_path / "one.zarr", schema=make_schema(sources=("corpus",))).path
    assert "source" not in printed("info", path)
    assert "source" not in printed("head", path)


def test_head_names_the_source_of_each_row(store, printed):
    found = json.loads(printed("head", store.path, "--start", 4, "--rows", 2, "--json"))
    assert [row["source"] for row in found] == ["web", "books"]
    cells = [line.split("│") for line in printed("head", store.path).splitlines() if "│" in line]
    sources = [cell[4].strip() for cell in cells]
    assert [name for name in sources if name] == ["web"] * 5 + ["books"] * 3 + ["web"] * 2
