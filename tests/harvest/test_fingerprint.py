"""What a harvest is made from is recognised by its bytes, not by where it lies."""

from types import SimpleNamespace

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HTTPError

from harvest.fingerprint import fingerprints
from pipeline.errors import CorpusError, ModelError
from pipeline.specs import CorpusSpec, ModelSpec


def model(path, **keys) -> dict[str, ModelSpec]:
    return {"a": ModelSpec(path=str(path), hookpoint="layers.0", **keys)}


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
    "name",
    [
        *("tokenizer_config.json", "added_tokens.json", "vocab.txt", "merges.txt", "spm.model"),
        "chat_template.jinja",
    ],
)
def test_every_file_of_a_tokenizer_counts(name, folder, corpus):
    before = fingerprints(model(folder), corpus)
    (folder / name).write_text("x")
    assert fingerprints(model(folder), corpus)["models.a"] != before["models.a"]


def test_a_local_adapter_counts_by_its_files(folder, corpus, tmp_path):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_model.safetensors").write_text("x")
    plain = fingerprints(model(folder), corpus)["models.a"]
    before = fingerprints(model(folder, adapter=str(adapter)), corpus)["models.a"]
    (adapter / "adapter_model.safetensors").write_text("y")
    after = fingerprints(model(folder, adapter=str(adapter)), corpus)["models.a"]
    assert len({plain, before, after}) == 3
    (adapter / "adapter_model.safetensors").write_text("x")
    moved = adapter.rename(tmp_path / "moved")
    assert fingerprints(model(folder, adapter=str(moved)), corpus)["models.a"] == before


def test_an_adapter_on_the_hub_counts_by_its_commit(folder, corpus, monkeypatch):
    monkeypatch.setattr(HfApi, "model_info", lambda *_, **__: SimpleNamespace(sha="abc"))
    found = fingerprints(model(folder, adapter="foo/bar"), corpus)["models.a"]
    assert found.endswith(", adapter hub:abc")


def test_an_adapter_that_cannot_be_reached_is_one_line(folder, corpus, monkeypatch):
    def unreachable(*_, **__):
        raise HTTPError("no network")

    monkeypatch.setattr(HfApi, "model_info", unreachable)
    with pytest.raises(ModelError, match=r"models\.a\.adapter: foo/bar: .* \(no network\)"):
        fingerprints(model(folder, adapter="foo/bar"), corpus)


def test_a_chat_template_counts_by_its_text(folder, corpus, tmp_path):
    template = tmp_path / "chat.jinja"
    plain = fingerprints(model(folder), corpus)["models.a"]
    with pytest.raises(ModelError, match=r"models\.a\.chat_template: .*chat\.jinja: cannot be"):
        fingerprints(model(folder, chat_template=str(template)), corpus)
    template.write_text("x")
    before = fingerprints(model(folder, chat_template=str(template)), corpus)["models.a"]
    template.write_text("y")
    after = fingerprints(model(folder, chat_template=str(template)), corpus)["models.a"]
    assert len({plain, before, after}) == 3
    other = tmp_path / "chat.j2"
    other.write_text("z")
    named = fingerprints(model(folder, chat_template=str(other)), corpus)["models.a"]
    assert named not in (plain, before, after)
    both = {**model(folder, chat_template="b"), "b": model(folder)["a"]}
    assert fingerprints(both, corpus)["models.a"] == plain


def test_every_source_counts_by_its_own_files(folder, tmp_path):
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "1.txt").write_text("one")
    (tmp_path / "b.jsonl").write_text('{"text": "b"}')
    sources = {"a": {"path": str(texts)}, "b": {"path": str(tmp_path / "b.jsonl")}}
    spec = CorpusSpec.model_validate({"sources": {**sources, "c": {"path": "-"}}})
    before = fingerprints(model(folder), spec)
    assert list(before) == ["models.a", "corpus.a", "corpus.b", "corpus.c"]
    assert before["corpus.c"] == "stdin"
    (texts / "README.md").write_text("not read")
    assert fingerprints(model(folder), spec) == before
    (texts / "2.txt").write_text("two")
    after = fingerprints(model(folder), spec)
    assert {key for key in after if after[key] != before[key]} == {"corpus.a"}


def test_a_dataset_on_the_hub_counts_by_its_commit(folder, monkeypatch):
    monkeypatch.setattr(HfApi, "dataset_info", lambda *_, **__: SimpleNamespace(sha="abc"))
    assert fingerprints(model(folder), CorpusSpec(path="foo/bar"))["corpus"] == "hub:abc"
