"""Datasets that `datasets` finds, on the hub or in a folder, each mistake in one line."""

import pytest
from datasets import Dataset, DatasetDict

from harvest.corpus.reader import count_documents, read_documents
from pipeline.errors import CorpusError
from pipeline.specs import CorpusSpec

ROWS = {"text": ["one\r\n", "two", "three"], "domain": ["x", None, "y"]}


def texts(spec: CorpusSpec) -> list[str]:
    return [document.text for document in read_documents(spec)]


@pytest.fixture
def hub_folder(tmp_path):
    """Laid out as on the hub, with two splits."""
    (tmp_path / "set" / "data").mkdir(parents=True)
    Dataset.from_dict(ROWS).to_parquet(tmp_path / "set" / "data" / "train-0-of-1.parquet")
    Dataset.from_dict({"text": ["tested"], "domain": ["z"]}).to_parquet(
        tmp_path / "set" / "data" / "test-0-of-1.parquet"
    )
    return str(tmp_path / "set")


def test_a_folder_laid_out_as_on_the_hub_is_read_by_split(hub_folder):
    spec = CorpusSpec(path=hub_folder, label_column="domain")
    assert [(d.text, d.label) for d in read_documents(spec)] == [
        ("one\r\n", "x"),
        ("two", ""),
        ("three", "y"),
    ]
    assert texts(CorpusSpec(path=hub_folder, split="test")) == ["tested"]
    assert texts(CorpusSpec(path=hub_folder, limit=2)) == ["one\r\n", "two"]
    assert count_documents(spec) is None


def test_a_saved_dataset_is_read_with_or_without_splits(tmp_path):
    Dataset.from_dict(ROWS).save_to_disk(tmp_path / "plain")
    DatasetDict({"train": Dataset.from_dict(ROWS)}).save_to_disk(tmp_path / "splits")
    assert texts(CorpusSpec(path=str(tmp_path / "plain"))) == ROWS["text"]
    assert texts(CorpusSpec(path=str(tmp_path / "splits"))) == ROWS["text"]
    with pytest.raises(CorpusError, match=r"corpus\.path: .*splits: .*no split 'test'; .* train"):
        texts(CorpusSpec(path=str(tmp_path / "splits"), split="test"))


@pytest.mark.parametrize("key", ["text_column", "label_column"])
def test_a_missing_column_lists_those_there_are(hub_folder, key):
    spec = CorpusSpec(path=hub_folder).model_copy(update={key: "body"})
    with pytest.raises(CorpusError, match=rf"corpus\.{key}: no column 'body'.*text, domain"):
        texts(spec)


def test_a_missing_split_is_one_line(hub_folder):
    with pytest.raises(CorpusError, match=r"corpus\.path: .*set: cannot be read \(.*valid") as e:
        texts(CorpusSpec(path=hub_folder, split="valid"))
    assert "\n" not in str(e.value)


def test_a_folder_without_data_is_one_line(tmp_path):
    with pytest.raises(CorpusError, match=r"corpus\.path: .*: cannot be read") as error:
        texts(CorpusSpec(path=str(tmp_path)))
    assert "\n" not in str(error.value)


def test_a_broken_file_is_one_line_and_not_logged_as_well(hub_folder, tmp_path, capfd):
    file = tmp_path / "set" / "data" / "train-0-of-1.parquet"
    content = bytearray(file.read_bytes())
    content[4:40] = bytes(36)
    file.write_bytes(content)
    with pytest.raises(CorpusError, match=r"corpus\.path: .*set: document 0 cannot be read"):
        texts(CorpusSpec(path=hub_folder))
    assert capfd.readouterr().err == ""
