"""Documents from every kind of file, text kept exactly, mistakes named in one line."""

import json
from itertools import islice

import polars as pl
import pytest

from harvest.corpus.document import Document
from harvest.corpus.reader import CorpusReader, check_corpus, count_documents, read_documents
from pipeline.errors import CorpusError
from pipeline.specs import CorpusSpec

TEXTS = ["one\r\ntwo\r", "", "👩‍👩‍👧 e\u0301 漢字 “q”\u2028", "   ", "2020-01-01"]
LABELS = ["x", None, "y", "x", "y"]


def write(folder, suffix: str) -> CorpusSpec:
    file = folder / f"corpus{suffix}"
    table = pl.DataFrame({"text": TEXTS, "domain": LABELS, "number": range(5)})
    if suffix == ".parquet":
        table.write_parquet(file, row_group_size=2)
    elif suffix == ".jsonl":
        lines = (json.dumps(row, ensure_ascii=False) for row in table.to_dicts())
        file.write_bytes("\n".join(lines).encode())
    else:
        file.write_text(json.dumps(table.to_dicts(), indent=1))
    return CorpusSpec(path=str(file), label_column="domain")


def texts(spec: CorpusSpec) -> list[str]:
    return [document.text for document in read_documents(spec)]


@pytest.mark.parametrize("start", [0, 1, 4, 5])
@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".json"])
def test_documents_are_read_exactly_and_in_order_from_any_start(tmp_path, suffix, start):
    found = list(CorpusReader(write(tmp_path, suffix), start))
    labels = [label or "" for label in LABELS]
    assert found == [Document(*pair) for pair in zip(TEXTS, labels, strict=True)][start:]


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".json"])
def test_limit_counts_from_the_first_document(tmp_path, suffix):
    spec = write(tmp_path, suffix).model_copy(update={"limit": 3})
    assert texts(spec) == TEXTS[:3]
    assert [document.text for document in CorpusReader(spec, 1)] == TEXTS[1:3]
    assert count_documents(spec) == 3
    assert count_documents(write(tmp_path, suffix)) == len(TEXTS)


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".json"])
def test_a_corpus_shorter_than_what_was_harvested_of_it_is_refused(tmp_path, suffix):
    with pytest.raises(CorpusError, match=r"ends after 5 documents, and 6 have been harvested"):
        CorpusReader(write(tmp_path, suffix), 6)


def test_a_text_file_is_one_document_with_its_line_ends(tmp_path):
    file = tmp_path / "book.txt"
    file.write_bytes(b"one\r\n\r\ntwo\rthree\n")
    spec = CorpusSpec(path=str(file))
    assert list(read_documents(spec)) == [Document("one\r\n\r\ntwo\rthree\n", "")]
    assert list(CorpusReader(spec, 1)) == []
    assert count_documents(spec) == 1


def test_lines_are_documents_without_their_ends_and_blank_ones_are_none(tmp_path):
    file = tmp_path / "lines.txt"
    file.write_bytes("one\r\n\n  \n two\u2028\x0c x\rthree\nlast".encode())
    spec = CorpusSpec(path=str(file), format="lines")
    assert texts(spec) == ["one", " two\u2028\x0c x\rthree", "last"]
    assert count_documents(spec) == 3


def test_strings_in_json_are_documents(tmp_path):
    (tmp_path / "x.json").write_text('["one", {"text": "two"}]')
    (tmp_path / "x.jsonl").write_text('"one"\n{"text": "two"}')
    for name in ("x.json", "x.jsonl"):
        assert texts(CorpusSpec(path=str(tmp_path / name))) == ["one", "two"]


def test_a_byte_order_mark_is_no_part_of_json(tmp_path):
    (tmp_path / "x.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "one"}\n')
    (tmp_path / "x.json").write_bytes(b'\xef\xbb\xbf[{"text": "one"}]')
    for name in ("x.json", "x.jsonl"):
        assert texts(CorpusSpec(path=str(tmp_path / name))) == ["one"]


def test_texts_that_look_like_dates_stay_texts(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"text": "2020-01-01 00:00:00"}\n')
    assert texts(CorpusSpec(path=str(tmp_path / "x.jsonl"))) == ["2020-01-01 00:00:00"]


@pytest.mark.parametrize("path", ["gone.parquet", "gone.jsonl", "gone.txt", "/gone/folder"])
def test_a_missing_file_is_named(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CorpusError, match=rf"corpus\.path: {path}: no such file"):
        check_corpus(CorpusSpec(path=path))


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".json"])
@pytest.mark.parametrize("key", ["text_column", "label_column", "chat_column"])
def test_a_missing_column_lists_those_there_are(tmp_path, suffix, key):
    spec = write(tmp_path, suffix).model_copy(update={key: "body"})
    with pytest.raises(CorpusError, match=rf"corpus\.{key}: no column 'body'.*text, domain, num"):
        texts(spec)


def test_a_label_may_be_left_out_of_later_lines(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"text": "a", "domain": "d"}\n{"text": "b"}\n')
    spec = CorpusSpec(path=str(tmp_path / "x.jsonl"), label_column="domain")
    assert [document.label for document in read_documents(spec)] == ["d", ""]


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".json"])
@pytest.mark.parametrize(("column", "number"), [("number", 0), ("domain", 1)])
def test_a_document_that_is_not_text_is_named_by_its_number(tmp_path, suffix, column, number):
    spec = write(tmp_path, suffix).model_copy(update={"text_column": column})
    with pytest.raises(
        CorpusError, match=rf"corpus\.text_column: document {number} of .*corpus{suffix} holds"
    ):
        texts(spec)


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".json", ".txt"])
def test_a_broken_file_is_one_line(tmp_path, suffix):
    file = tmp_path / f"broken{suffix}"
    file.write_bytes(b'{"text": "\xff')
    with pytest.raises(CorpusError, match=rf"corpus\.path: .*broken{suffix}") as error:
        texts(CorpusSpec(path=str(file)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"text": "\xff"}', "can't decode byte 0xff"),
        (b'{"text": "b"', "delimiter"),
        (b"[1]", "list where an object was expected"),
    ],
)
def test_a_bad_line_is_named_by_its_document(tmp_path, line, reason):
    (tmp_path / "x.jsonl").write_bytes(b'{"text": "a"}\n\n' + line + b'\n{"text": "c"}\n')
    with pytest.raises(CorpusError, match=rf"x\.jsonl: document 1 cannot be read \(.*{reason}"):
        texts(CorpusSpec(path=str(tmp_path / "x.jsonl")))


def test_half_of_a_character_is_not_text(tmp_path):
    (tmp_path / "x.jsonl").write_text(r'{"text": "a \ud83d b"}')
    with pytest.raises(CorpusError, match=r"corpus\.text_column: document 0 .*'\\ud83d'.*half"):
        texts(CorpusSpec(path=str(tmp_path / "x.jsonl")))


def test_a_truncated_parquet_file_is_named(tmp_path):
    spec = write(tmp_path, ".parquet")
    file = tmp_path / "corpus.parquet"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(CorpusError, match=r"corpus\.path: .*corpus\.parquet.*cannot be read"):
        texts(spec)
    with pytest.raises(CorpusError, match=r"corpus\.path: .*corpus\.parquet: cannot be read"):
        count_documents(spec)


def test_a_broken_file_is_not_logged_as_well(tmp_path, capfd):
    file = tmp_path / "broken.jsonl"
    file.write_text('{"text": "a"}\n{"text": \n')
    with pytest.raises(CorpusError):
        texts(CorpusSpec(path=str(file)))
    assert capfd.readouterr().err == ""


def test_sources_are_named_in_documents_and_errors(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a0"}\n{"text": "a1"}\n')
    (tmp_path / "b.jsonl").write_text('{"text": "b0"}\n{"text": 5}\n')
    sources = {"a": {"path": str(tmp_path / "a.jsonl")}, "b": {"path": str(tmp_path / "b.jsonl")}}
    spec = CorpusSpec.model_validate({"sources": sources})
    assert count_documents(spec) == 4
    found = read_documents(spec)
    assert [(d.text, d.source) for d in islice(found, 3)] == [
        ("a0", "a"),
        ("b0", "b"),
        ("a1", "a"),
    ]
    with pytest.raises(CorpusError, match=r"corpus\.sources\.b\.text_column: document 1 of .*b\.j"):
        next(found)


def test_every_source_is_checked(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a0"}\n')
    sources = {"a": {"path": str(tmp_path / "a.jsonl")}, "b": {"path": "/gone"}}
    with pytest.raises(CorpusError, match=r"corpus\.sources\.b\.path: /gone: no such file"):
        check_corpus(CorpusSpec.model_validate({"sources": sources}))


@pytest.mark.parametrize("weights", [(3, 0.7, 1.5), (1, 1, 5), (2, 3, 0.1)])
def test_a_mixture_resumed_after_any_document_goes_on_as_before(tmp_path, weights):
    sources = {}
    for name, count, weight in zip("abc", (6, 3, 40), weights, strict=True):
        (tmp_path / f"{name}.txt").write_text("".join(f"{name}{i}\n" for i in range(count)))
        path = str(tmp_path / f"{name}.txt")
        sources[name] = {"path": path, "format": "lines", "weight": weight}
    spec = CorpusSpec.model_validate({"sources": sources})
    whole, reader = texts(spec), CorpusReader(spec)
    for cursor in range(len(whole)):
        state = json.loads(json.dumps(reader.state()))
        resumed = [document.text for document in CorpusReader(spec, cursor, state)]
        assert resumed == whole[cursor:]
        next(reader)
