"""Which files a path means, in which order, and what is refused."""

import json

import polars as pl
import pytest

from harvest.corpus.files import local_files
from harvest.corpus.reader import check_corpus, count_documents, read_documents
from pipeline.errors import CorpusError
from pipeline.specs import CorpusSpec, SourceSpec


def write(file, *texts: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".parquet":
        pl.DataFrame({"text": texts}).write_parquet(file)
    elif file.suffix == ".txt":
        file.write_text("\n".join(texts))
    else:
        file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


def texts(**spec: str) -> list[str]:
    return [document.text for document in read_documents(CorpusSpec.model_validate(spec))]


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_the_files_of_a_folder_are_read_by_name(tmp_path, suffix):
    write(tmp_path / f"part-2{suffix}", "c")
    write(tmp_path / f"part-1{suffix}", "a", "b")
    write(tmp_path / f".part-0{suffix}", "hidden")
    write(tmp_path / "deeper" / f"part-0{suffix}", "z")
    (tmp_path / "README.md").write_text("a card")
    assert texts(path=str(tmp_path)) == ["a", "b", "c"]
    assert count_documents(CorpusSpec(path=str(tmp_path))) == 3
    assert count_documents(CorpusSpec(path=str(tmp_path), limit=2)) == 2


def test_a_folder_of_texts_has_one_document_per_file_or_per_line(tmp_path):
    write(tmp_path / "b.txt", "three", "four")
    write(tmp_path / "a.txt", "one", "two")
    assert texts(path=str(tmp_path)) == ["one\ntwo", "three\nfour"]
    assert texts(path=str(tmp_path), format="lines") == ["one", "two", "three", "four"]
    assert count_documents(CorpusSpec(path=str(tmp_path))) == 2
    assert count_documents(CorpusSpec(path=str(tmp_path), format="lines", limit=3)) == 3


def test_a_format_finds_its_files_in_subfolders_too(tmp_path):
    write(tmp_path / "b" / "x.txt", "two")
    write(tmp_path / "a" / "y.txt", "one")
    write(tmp_path / ".git" / "z.txt", "hidden")
    write(tmp_path / "meta.json", "no text")
    assert texts(path=str(tmp_path), format="text") == ["one", "two"]


def test_several_kinds_of_files_are_refused_until_a_format_says_which(tmp_path):
    write(tmp_path / "a.jsonl", "one")
    write(tmp_path / "b.txt", "two")
    with pytest.raises(CorpusError, match=r"several kinds \(jsonl, text\).*corpus\.format"):
        check_corpus(CorpusSpec(path=str(tmp_path)))
    assert texts(path=str(tmp_path), format="jsonl") == ["one"]
    with pytest.raises(CorpusError, match=r"corpus\.path: .*: no \.parquet file in it"):
        check_corpus(CorpusSpec(path=str(tmp_path), format="parquet"))


def test_a_format_stands_above_the_file_s_ending(tmp_path):
    write(tmp_path / "a.jsonl", "one")
    (tmp_path / "a.jsonl").rename(tmp_path / "a.log")
    assert texts(path=str(tmp_path / "a.log"), format="jsonl") == ["one"]


def test_a_kind_of_file_that_is_not_read_names_those_that_are(tmp_path):
    (tmp_path / "x.csv").write_text("text\nx\n")
    with pytest.raises(CorpusError, match=r"x\.csv: not a kind .*\.parquet, \.jsonl, .*\.txt file"):
        check_corpus(CorpusSpec(path=str(tmp_path / "x.csv")))


def test_a_name_with_brackets_is_a_file_and_no_pattern(tmp_path):
    write(tmp_path / "br[1].parquet", "one")
    assert texts(path=str(tmp_path / "br[1].parquet")) == ["one"]


def test_a_name_that_is_no_path_here_is_one_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert local_files(SourceSpec(path="owner/dataset"), "corpus") is None
    with pytest.raises(CorpusError, match=r"corpus\.path: owner/dataset: no such file"):
        local_files(SourceSpec(path="owner/dataset", format="jsonl"), "corpus")


def test_the_home_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "a.jsonl", "one")
    assert texts(path="~/a.jsonl") == ["one"]


def test_a_broken_file_among_others_is_the_one_that_is_named(tmp_path):
    write(tmp_path / "a.jsonl", "one", "two")
    (tmp_path / "b.jsonl").write_text('{"text": "three"}\n{"text": \n')
    with pytest.raises(CorpusError, match=r"corpus\.path: .*/b\.jsonl: document 1 cannot be read"):
        texts(path=str(tmp_path))


def test_a_chat_needs_columns(tmp_path):
    write(tmp_path / "a.txt", "one")
    with pytest.raises(CorpusError, match=r"corpus\.chat_column: .*a\.txt is read as text"):
        check_corpus(CorpusSpec(path=str(tmp_path / "a.txt"), chat_column="messages"))
