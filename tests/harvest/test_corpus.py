"""Documents from every kind of file, text kept exactly, mistakes named in one line."""

import json
from itertools import pairwise

import polars as pl
import pytest

from harvest.blocks import cut_blocks
from harvest.corpus import Document, count_documents, read_documents
from pipeline.config import CorpusSpec
from pipeline.errors import CorpusError

TEXTS = ["one\r\ntwo\r", "", "👩‍👩‍👧 e\u0301 漢字 “q”\u2028", "   ", "2020-01-01"]
LABELS = ["x", None, "y", "x", "y"]


def write(folder, suffix: str) -> CorpusSpec:
    file = folder / f"corpus{suffix}"
    table = pl.DataFrame({"text": TEXTS, "domain": LABELS, "number": range(5)})
    if suffix == ".parquet":
        table.write_parquet(file, row_group_size=2)
    else:
        lines = (json.dumps(row, ensure_ascii=False) for row in table.to_dicts())
        file.write_bytes("\n".join(lines).encode())
    return CorpusSpec(path=str(file), label_column="domain")


@pytest.mark.parametrize("start", [0, 1, 4, 5])
@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_documents_are_read_exactly_and_in_order_from_any_start(tmp_path, suffix, start):
    found = list(read_documents(write(tmp_path, suffix), start))
    labels = [label or "" for label in LABELS]
    assert found == [Document(*pair) for pair in zip(TEXTS, labels, strict=True)][start:]


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_limit_counts_from_the_first_document(tmp_path, suffix):
    spec = write(tmp_path, suffix).model_copy(update={"limit": 3})
    assert [document.text for document in read_documents(spec, 1)] == TEXTS[1:3]
    assert list(read_documents(spec, 4)) == []
    assert count_documents(spec) == 3
    assert count_documents(write(tmp_path, suffix)) == len(TEXTS)


def test_a_text_file_is_one_document_with_its_line_ends(tmp_path):
    file = tmp_path / "book.txt"
    file.write_bytes(b"one\r\n\r\ntwo\rthree\n")
    spec = CorpusSpec(path=str(file))
    assert list(read_documents(spec)) == [Document("one\r\n\r\ntwo\rthree\n", "")]
    assert list(read_documents(spec, 1)) == []
    assert count_documents(spec) == 1


@pytest.mark.parametrize("path", ["gone.parquet", "gone.jsonl", "gone.txt", "/gone/folder"])
def test_a_missing_file_is_named(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CorpusError, match=rf"corpus\.path: {path}: no such file"):
        list(read_documents(CorpusSpec(path=path)))


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
@pytest.mark.parametrize("key", ["text_column", "label_column"])
def test_a_missing_column_lists_those_there_are(tmp_path, suffix, key):
    spec = write(tmp_path, suffix).model_copy(update={key: "body"})
    with pytest.raises(CorpusError, match=rf"corpus\.{key}: no column 'body'.*text, domain, num"):
        list(read_documents(spec))


@pytest.mark.parametrize("column", ["number", "domain"])
def test_a_document_that_is_not_text_is_named_by_its_number(tmp_path, column):
    spec = write(tmp_path, ".parquet").model_copy(update={"text_column": column})
    number = {"number": 0, "domain": 1}[column]
    with pytest.raises(CorpusError, match=rf"corpus\.text_column: document {number} of"):
        list(read_documents(spec))


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".txt"])
def test_a_broken_file_is_one_line(tmp_path, suffix):
    file = tmp_path / f"broken{suffix}"
    file.write_bytes(b'{"text": "\xff')
    with pytest.raises(CorpusError, match=rf"corpus\.path: .*broken{suffix}"):
        list(read_documents(CorpusSpec(path=str(file))))


def test_blocks_end_at_either_limit_and_do_not_depend_on_where_reading_began():
    documents = [Document("x" * size, "") for size in (3, 0, 9, 1, 1, 1, 1, 20, 2)]
    blocks = list(cut_blocks(documents, max_documents=3, max_characters=10))
    assert [[len(d.text) for d in block] for block in blocks] == [
        [3, 0, 9],
        [1, 1, 1],
        [1, 20],
        [2],
    ]
    done = 0
    for number, (block, _) in enumerate(pairwise(blocks), start=1):
        done += len(block)
        assert list(cut_blocks(documents[done:], 3, 10)) == blocks[number:]


def test_a_name_with_brackets_is_a_file_and_no_pattern(tmp_path):
    file = tmp_path / "br[1].parquet"
    pl.DataFrame({"text": TEXTS}).write_parquet(file)
    found = read_documents(CorpusSpec(path=str(file)))
    assert [document.text for document in found] == TEXTS


def test_a_kind_of_file_that_is_not_read_names_those_that_are(tmp_path):
    (tmp_path / "x.csv").write_text("text\nx\n")
    with pytest.raises(CorpusError, match=r"x\.csv: not a kind .*\.parquet, \.jsonl, .*\.txt file"):
        list(read_documents(CorpusSpec(path=str(tmp_path / "x.csv"))))


def test_a_broken_file_is_not_logged_as_well(tmp_path, capfd):
    file = tmp_path / "broken.jsonl"
    file.write_text('{"text": "a"}\n{"text": \n')
    with pytest.raises(CorpusError):
        list(read_documents(CorpusSpec(path=str(file))))
    assert capfd.readouterr().err == ""
