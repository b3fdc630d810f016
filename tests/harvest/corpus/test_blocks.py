"""Blocks are the same however often reading was stopped; tasks share the documents out."""

import json
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harvest.corpus.blocks import DocumentBlock, read_blocks
from harvest.corpus.reader import read_documents
from pipeline.specs import CorpusSpec
from store.block import document_hash, encode_text


def blocks(corpus: CorpusSpec, cursor: int = 0, state=None, **options) -> list[DocumentBlock]:
    given = {"task": 0, "of": 1, "seen": (), "max_documents": 7, "max_characters": 60} | options
    return list(read_blocks(corpus, cursor=cursor, state=state, **given))


def hashes(found: list[DocumentBlock]) -> list[int]:
    return [document_hash(encode_text(d.text)) for block in found for d in block.documents]


@dataclass(frozen=True)
class Data:
    """One small corpus in every form that is read."""

    root: Path

    def paths(self) -> dict[str, str]:
        names = ["x.parquet", "x.jsonl", "parquet", "jsonl", "x.json", "texts", "hub", "hub_jsonl"]
        return {name: str(self.root / name) for name in [*names, "saved"]}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Data:
    from datasets import Dataset

    root = tmp_path_factory.mktemp("data")
    # The last third of the texts were there before.
    table = pl.DataFrame({"text": [f"text {i % 60} " + "x" * (i % 60 % 11) for i in range(90)]})
    lines = [json.dumps(row) + "\n" for row in table.to_dicts()]
    for folder in ("parquet", "jsonl", "texts", "hub/data", "hub_jsonl/data"):
        (root / folder).mkdir(parents=True)
    table.write_parquet(root / "x.parquet", row_group_size=13)
    (root / "x.jsonl").write_text("".join(lines))
    (root / "b.jsonl").write_text("".join(f'{{"text": "text {i} of b"}}\n' for i in range(9)))
    (root / "x.json").write_text(json.dumps(table.to_dicts()))
    for number in range(3):
        part = slice(number * 30, number * 30 + 30)
        for folder, name in (("parquet", f"{number}"), ("hub/data", f"train-{number}-of-3")):
            table[part].write_parquet(root / folder / f"{name}.parquet", row_group_size=8)
        for folder, name in (("jsonl", f"{number}"), ("hub_jsonl/data", f"train-{number}-of-3")):
            (root / folder / f"{name}.jsonl").write_text("".join(lines[part]))
    for number, text in enumerate(table["text"]):
        (root / "texts" / f"{number:02}.txt").write_text(text)
    Dataset.from_polars(table).save_to_disk(root / "saved", num_shards=2)
    return Data(root)


KINDS = ["x.parquet", "x.jsonl", "x.json", "parquet", "jsonl", "texts"]
STREAMED = ["hub", "hub_jsonl", "saved"]


@pytest.mark.parametrize("kind", [*KINDS, *STREAMED])
@pytest.mark.parametrize("with_state", [True, False])
def test_blocks_are_the_same_resumed_at_every_boundary(data, kind, with_state):
    corpus = CorpusSpec(path=data.paths()[kind], limit=80)
    whole = blocks(corpus)
    assert [d for block in whole for d in block.documents] == list(read_documents(corpus))
    for number, block in enumerate(whole[: -1 if kind in KINDS else 5]):
        state = json.loads(json.dumps(block.state)) if with_state else None
        rest = blocks(corpus, block.end, state)
        assert [b.documents for b in rest] == [b.documents for b in whole[number + 1 :]]
        assert [b.numbers for b in rest] == [b.numbers for b in whole[number + 1 :]]
        assert [b.end for b in rest] == [b.end for b in whole[number + 1 :]]


@pytest.mark.parametrize("kind", STREAMED)
def test_a_stream_stopped_after_every_block_goes_on_exactly(data, kind):
    """The state of a stream that was resumed itself leads on as well."""
    corpus = CorpusSpec(path=data.paths()[kind])
    whole = blocks(corpus, max_documents=23, max_characters=10_000)
    options = {"task": 0, "of": 1, "seen": (), "max_documents": 23, "max_characters": 10_000}
    end, state = 0, None
    for block in whole:
        found = next(read_blocks(corpus, cursor=end, state=state, **options))
        assert found.documents == block.documents
        end, state = found.end, json.loads(json.dumps(found.state))
    assert list(read_blocks(corpus, cursor=end, state=state, **options)) == []


def mixed(data: Data, **keys) -> CorpusSpec:
    """Three weighted sources; the second ends early, and the first before the third."""
    paths = data.paths()
    sources = {
        "a": {"path": paths["parquet"], "weight": 3, "limit": 50},
        "b": {"path": str(data.root / "b.jsonl"), "weight": 0.7},
        "c": {"path": paths["saved"], "weight": 1.5},
    }
    return CorpusSpec.model_validate({"sources": sources, **keys})


@pytest.mark.parametrize("deduplicate", [True, False])
@pytest.mark.parametrize("with_state", [True, False])
def test_a_weighted_corpus_resumed_at_every_boundary_gives_the_same_blocks(
    data, with_state, deduplicate
):
    corpus = mixed(data, deduplicate=deduplicate)
    whole = blocks(corpus, task=1, of=2)
    assert len(whole) > 4
    assert {d.source for block in whole for d in block.documents} == {"a", "b", "c"}
    for number, block in enumerate(whole):
        state = json.loads(json.dumps(block.state, sort_keys=True)) if with_state else None
        seen = hashes(whole[: number + 1])
        rest = blocks(corpus, block.end, state, task=1, of=2, seen=seen)
        assert [b.documents for b in rest] == [b.documents for b in whole[number + 1 :]]
        assert [b.excluded for b in rest] == [b.excluded for b in whole[number + 1 :]]
        assert [b.end for b in rest] == [b.end for b in whole[number + 1 :]]


def test_the_sources_of_a_mixture_are_read_whole_and_in_order(data):
    found = list(read_documents(mixed(data)))
    every = [document.text for document in read_documents(CorpusSpec(path=data.paths()["hub"]))]
    assert [document.text for document in found if document.source == "a"] == every[:50]
    assert [document.text for document in found if document.source == "c"] == every
    assert len(found) == 50 + 9 + 90


def _spoil(state: dict, how: str) -> object:
    source = state["sources"]["a"]
    spoiled = {
        "none": None,
        "not a mapping": [1, 2],
        "empty": {},
        "another source": {"sources": {**state["sources"], "z": source}},
        "a source less": {"sources": {"a": source}},
        "another count": {
            "sources": {**state["sources"], "a": {**source, "documents": source["documents"] + 1}}
        },
    }
    rows = {
        "no rows": None,
        "rows of another kind": {"epoch": 0},
        "a file too many": {**source["rows"], "file": 9},
        "a row too many": {**source["rows"], "row": 1000},
        "a negative row": {**source["rows"], "row": -1},
        "a row that is no number": {**source["rows"], "row": "3"},
        "a byte in parquet": {**source["rows"], "byte": 5},
    }
    if how in spoiled:
        return spoiled[how]
    return {"sources": {**state["sources"], "a": {**source, "rows": rows[how]}}}


SPOILED = [
    *("none", "not a mapping", "empty", "another source", "a source less", "another count"),
    *("rows of another kind", "a file too many", "a row too many", "a negative row"),
    *("a row that is no number", "a byte in parquet", "no rows"),
]


@pytest.mark.parametrize("how", SPOILED)
def test_a_state_that_does_not_fit_is_not_trusted(data, how):
    corpus = mixed(data)
    whole = blocks(corpus)
    state = _spoil(whole[2].state, how)
    rest = blocks(corpus, whole[2].end, state)
    assert [b.documents for b in rest] == [b.documents for b in whole[3:]]


@pytest.mark.parametrize("cursor", [0, 5, 20])
def test_a_state_of_another_cursor_is_not_trusted(data, cursor):
    corpus = CorpusSpec(path=data.paths()["hub"])
    state = blocks(corpus)[1].state
    texts = [d.text for block in blocks(corpus, cursor, state) for d in block.documents]
    assert texts == [d.text for d in read_documents(corpus)][cursor:]


@pytest.mark.parametrize("spoil", [{"epoch": 0}, [1], 5, {"epoch": "x", "examples_iterable": 1}])
def test_a_stream_s_state_of_another_shape_is_not_trusted(data, spoil):
    corpus = CorpusSpec(path=data.paths()["hub"])
    first, *others = blocks(corpus)
    first.state["sources"]["corpus"]["rows"] = spoil
    rest = blocks(corpus, first.end, first.state)
    assert [b.documents for b in rest] == [b.documents for b in others]


def test_blocks_end_at_either_limit(tmp_path):
    sizes = (3, 1, 9, 1, 1, 1, 1, 20, 2)
    rows = (json.dumps({"text": "x" * size}) for size in sizes)
    (tmp_path / "x.jsonl").write_text("\n".join(rows))
    corpus = CorpusSpec(path=str(tmp_path / "x.jsonl"))
    found = blocks(corpus, max_documents=3, max_characters=10)
    assert [[len(d.text) for d in block.documents] for block in found] == [
        [3, 1, 9],
        [1, 1, 1],
        [1, 20],
        [2],
    ]
    assert [block.numbers for block in found] == [[0, 1, 2], [3, 4, 5], [6, 7], [8]]
    assert [block.end for block in found] == [3, 6, 8, 9]


TEXTS = st.lists(st.sampled_from([f"{i}" for i in range(12)]), max_size=40)


@given(TEXTS, TEXTS, st.integers(1, 5), st.booleans())
@settings(
    deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_tasks_are_disjoint_and_together_complete(tmp_path, first, second, of, deduplicate):
    sources = {}
    for name, texts in (("a", first), ("b", second)):
        (tmp_path / f"{name}.txt").write_text("\n".join(texts))
        sources[name] = {"path": str(tmp_path / f"{name}.txt"), "format": "lines"}
    corpus = CorpusSpec.model_validate({"sources": sources, "deduplicate": deduplicate})
    every = [document.text for document in read_documents(corpus)]
    by_task = [blocks(corpus, task=task, of=of) for task in range(of)]
    found = {
        number: document.text
        for task in by_task
        for block in task
        for number, document in zip(block.numbers, block.documents, strict=True)
    }
    kept = {number: text for number, text in enumerate(every) if text not in every[:number]}
    assert found == (kept if deduplicate else dict(enumerate(every)))
    assert sum(len(block.numbers) for task in by_task for block in task) == len(found)
    left_out = [sum(block.excluded.values()) for task in by_task for block in task]
    assert sum(left_out) == len(every) - len(found)


def test_duplicates_behind_the_last_document_are_counted_in_a_block_without_documents(tmp_path):
    (tmp_path / "x.txt").write_text("a\nb\na\nb\na\n")
    corpus = CorpusSpec(path=str(tmp_path / "x.txt"), format="lines", deduplicate=True)
    first, last = blocks(corpus, max_documents=2)
    assert [document.text for document in first.documents] == ["a", "b"]
    assert first.excluded == {}
    assert (last.documents, last.numbers) == ([], [])
    assert last.excluded == {"duplicate documents": 3}
    assert (first.end, last.end) == (2, 5)


def test_texts_are_hashed_only_where_the_hash_is_asked_for(data, monkeypatch):
    def refuse(_):
        raise AssertionError("hashed")

    monkeypatch.setattr("harvest.corpus.blocks.document_hash", refuse)
    corpus = CorpusSpec(path=data.paths()["x.jsonl"])
    assert sum(len(block.documents) for block in blocks(corpus)) == 90
    with pytest.raises(AssertionError, match="hashed"):
        blocks(corpus, of=2)
