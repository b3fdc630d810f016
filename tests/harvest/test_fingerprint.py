"""What a harvest is made from is recognised by its bytes, not by where it lies."""

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HTTPError

from harvest.fingerprint import fingerprints
from pipeline.config import CorpusSpec, ModelSpec
from pipeline.errors import CorpusError, ModelError


def model(path) -> dict[str, ModelSpec]:
    return {"a": ModelSpec(path=str(path), hookpoint="layers.0")}


@pytest.fixture
def corpus(tmp_path):
    (tmp_path / "text.txt").write_text("text")
    return CorpusSpec(path=str(tmp_path / "text.txt"))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    return tmp_path / "model"


@pytest.mark.parametrize("message", ["Name not known\nmore", ""])
def test_a_hub_dataset_without_network_is_one_line(message, folder, monkeypatch):
    def unreachable(*_, **__):
        raise HTTPError(message)

    monkeypatch.setattr(HfApi, "dataset_info", unreachable)
    with pytest.raises(CorpusError, match=r"corpus\.path: foo/bar: neither a local") as error:
        fingerprints(model(folder), CorpusSpec(path="foo/bar"))
    assert f"({message.partition(chr(10))[0] or 'HTTPError'})" in str(error.value)


def test_a_hub_model_without_network_is_one_line(corpus, monkeypatch):
    def unreachable(*_, **__):
        raise HTTPError("")

    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", unreachable)
    with pytest.raises(ModelError, match=r"models\.a\.path: foo/bar: .* \(HTTPError\)"):
        fingerprints(model("foo/bar"), corpus)


@pytest.mark.parametrize(
    "name", ["tokenizer_config.json", "added_tokens.json", "vocab.txt", "merges.txt", "spm.model"]
)
def test_every_file_of_a_tokenizer_counts(name, folder, corpus):
    before = fingerprints(model(folder), corpus)
    (folder / name).write_text("x")
    assert fingerprints(model(folder), corpus)["models.a"] != before["models.a"]
