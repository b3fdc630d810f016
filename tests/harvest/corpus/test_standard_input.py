"""Standard input as a corpus: read once, and again from the first document when resumed."""

import io
import sys

import pytest

from harvest.corpus.reader import CorpusReader, check_corpus, count_documents, read_documents
from pipeline.errors import CorpusError
from pipeline.specs import CorpusSpec

JSON_LINES = b'{"text": "one"}\n\n{"text": "two\\r\\n"}\n{"text": "three"}'


@pytest.fixture
def give(monkeypatch):
    def set_input(content: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))

    return set_input


@pytest.mark.parametrize(
    ("form", "content", "texts"),
    [
        ("auto", JSON_LINES, ["one", "two\r\n", "three"]),
        ("jsonl", JSON_LINES, ["one", "two\r\n", "three"]),
        ("lines", b"one\r\n \ntwo\rx\nthree", ["one", "two\rx", "three"]),
        ("text", b"one\r\n \ntwo\n", ["one\r\n \ntwo\n"]),
    ],
)
def test_every_format_is_read(give, form, content, texts):
    give(content)
    spec = CorpusSpec(path="-", format=form)
    assert count_documents(spec) is None
    assert [document.text for document in read_documents(spec)] == texts


@pytest.mark.parametrize("with_state", [True, False])
def test_resumed_it_is_read_again_from_the_first_document(give, with_state):
    give(JSON_LINES)
    spec = CorpusSpec(path="-")
    reader = CorpusReader(spec)
    next(reader)
    give(JSON_LINES)
    resumed = CorpusReader(spec, 1, reader.state() if with_state else None)
    assert [document.text for document in resumed] == ["two\r\n", "three"]


@pytest.mark.parametrize("with_state", [True, False])
def test_an_input_shorter_than_before_is_refused(give, with_state):
    give(JSON_LINES)
    spec = CorpusSpec(path="-")
    reader = CorpusReader(spec)
    for _ in range(2):
        next(reader)
    give(JSON_LINES[:17])
    with pytest.raises(CorpusError, match=r"ends .*2 .*have been harvested; give the same"):
        list(CorpusReader(spec, 2, reader.state() if with_state else None))


def test_a_state_that_leads_nowhere_does_not_use_up_the_input(give, tmp_path):
    (tmp_path / "b.jsonl").write_text('{"text": "b0"}\n{"text": "b1"}\n')
    sources = {"a": {"path": "-"}, "b": {"path": str(tmp_path / "b.jsonl")}}
    spec = CorpusSpec.model_validate({"sources": sources})
    give(JSON_LINES)
    reader = CorpusReader(spec)
    for _ in range(2):
        next(reader)
    state = reader.state()
    state["sources"]["b"]["rows"]["byte"] += 1
    give(JSON_LINES)
    assert [d.text for d in CorpusReader(spec, 2, state)] == ["two\r\n", "b1", "three"]


def test_a_bad_line_is_named_by_its_document(give):
    give(b'{"text": "a"}\n{"text": \n')
    with pytest.raises(
        CorpusError, match=r"corpus\.path: standard input: document 1 cannot be read"
    ):
        list(read_documents(CorpusSpec(path="-")))


def test_only_one_source_is_standard_input():
    spec = CorpusSpec.model_validate({"sources": {"a": {"path": "-"}, "b": {"path": "-"}}})
    with pytest.raises(CorpusError, match=r"corpus\.sources\.b\.path: .* corpus\.sources\.a "):
        check_corpus(spec)


@pytest.mark.parametrize(
    ("spec", "key"),
    [
        (CorpusSpec(path="-", format="parquet"), r"corpus\.format"),
        (CorpusSpec(path="-", format="lines", chat_column="m"), r"corpus\.chat_column"),
    ],
)
def test_what_standard_input_cannot_be_is_refused(spec, key):
    with pytest.raises(CorpusError, match=key):
        check_corpus(spec)
