"""`train import` and `train export` as commands."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from pipeline.errors import DictionaryError
from train import Dictionary, MatryoshkaBatchTopKSAE
from train.cli import app
from train.dictionary.artifact import load_dictionary
from train.formats.files import find

from .foreign import DEDICATED, layered_state, same_bits, single_state


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_there_and_back(tmp_path: Path) -> None:
    state = layered_state(DEDICATED[1])
    torch.save(state, tmp_path / "model_final.pt")
    out = tmp_path / "own"
    first = run("import", tmp_path, "--out", out, "--model", "base", "--model", "chat")
    assert first.exit_code == 0, first.output
    assert "20 features of a DedicatedFeatureBatchTopKCrossCoder" in first.output
    assert "  chat (model chat, width 6)" in first.output
    assert f"next: analyze report --dictionary {out}" in first.output
    assert [h.name for h in load_dictionary(out).hookpoints] == ["base", "chat"]
    back = tmp_path / "back"
    second = run("export", out, "--out", back, "--format", "dictionary_learning", "--json")
    assert second.exit_code == 0, second.output
    summary = json.loads(second.output)
    assert summary["kind"] == DEDICATED[1]
    assert summary["files"] == ["model_final.pt", "config.json"]
    found = find(back)
    assert same_bits({**found.tensors, **found.other}, state)


def test_as_json_and_to_sae_lens(tmp_path: Path) -> None:
    torch.save(single_state("BatchTopKSAE"), tmp_path / "ae.pt")
    out = tmp_path / "own"
    first = run("import", tmp_path, "--out", out, "--kind", "BatchTopKSAE", "--json")
    summary = json.loads(first.output)
    assert summary["partition"] == {"shared": 20}
    assert summary["hookpoints"] == {"model": {"model": "model", "width": 6}}
    second = run("export", out, "--out", tmp_path / "sae", "--format", "sae_lens")
    assert "jumprelu (sae_weights.safetensors, cfg.json)" in second.output
    assert "sae_lens.SAE.load_from_disk" in second.output


def test_export_refuses_a_folder_that_holds_something(tmp_path: Path) -> None:
    torch.save(single_state("AutoEncoder"), tmp_path / "ae.pt")
    run("import", tmp_path, "--out", tmp_path / "own")
    before = (tmp_path / "ae.pt").read_bytes()
    found = run("export", tmp_path / "own", "--out", tmp_path, "--format", "dictionary_learning")
    assert str(found.exception) == f"{tmp_path}: is there and not an empty folder; name another one"
    assert (tmp_path / "ae.pt").read_bytes() == before


@pytest.mark.parametrize(
    ("kind", "k", "wrong"),
    [
        ("AutoEncoder", 3, "--k 3: says what a BatchTopK dictionary holds, this is a relu"),
        ("AutoEncoderTopK", 3, "--k 3: says what a BatchTopK dictionary holds, this is a topk"),
        ("BatchTopKSAE", 21, "--k 21: more than the dictionary's 20 features"),
    ],
)
def test_k_is_a_note_of_batch_topk_alone(tmp_path: Path, kind: str, k: int, wrong: str) -> None:
    torch.save(single_state(kind), tmp_path / "ae.pt")
    imported = run("import", tmp_path, "--out", tmp_path / "own", "--kind", kind)
    assert imported.exit_code == 0, imported.output
    to = ("--out", tmp_path / "to", "--format", "dictionary_learning")
    assert str(run("export", tmp_path / "own", *to, "--k", k).exception) == wrong
    assert not (tmp_path / "to").exists()


def test_refusals(tmp_path: Path) -> None:
    torch.save(single_state("AutoEncoder"), tmp_path / "ae.pt")
    out = tmp_path / "own"
    assert run("import", tmp_path, "--out", out).exit_code == 0
    again = run("import", tmp_path, "--out", out)
    assert again.exit_code != 0
    assert isinstance(again.exception, DictionaryError)
    assert "holds a config.json already" in str(again.exception)
    other = run("export", out, "--out", tmp_path / "x", "--format", "onnx")
    assert str(other.exception) == "--format onnx: known are dictionary_learning, sae_lens"


@pytest.mark.parametrize("imported_in", ["the command", "Python"])
def test_where_it_came_from_survives_saving_it_again(tmp_path: Path, imported_in: str) -> None:
    state = single_state("MatryoshkaBatchTopKSAE")
    torch.save(state, tmp_path / "ae.pt")
    place = tmp_path / "ae.pt"
    if imported_in == "the command":
        assert run("import", place, "--out", tmp_path / "own").exit_code == 0
        place = tmp_path / "own"
    dictionary = Dictionary.from_pretrained(place)
    assert type(dictionary) is MatryoshkaBatchTopKSAE
    assert dictionary.k == int(state["k"])
    dictionary.save_pretrained(tmp_path / "again")
    assert Dictionary.from_pretrained(tmp_path / "again").notes == dictionary.notes
    assert dictionary.notes["source"]["file"] == str(tmp_path / "ae.pt")
    back = run(
        "export", tmp_path / "again", "--out", tmp_path / "out", "--format", "dictionary_learning"
    )
    assert back.exit_code == 0, back.output
    assert same_bits(find(tmp_path / "out").tensors, state)


def test_nested_parts_of_a_dictionary_of_our_own_are_exported(tmp_path: Path) -> None:
    own = MatryoshkaBatchTopKSAE(6, 20, 3, [5, 15])
    own.save_pretrained(tmp_path / "own")
    done = run(
        "export", tmp_path / "own", "--out", tmp_path / "out", "--format", "dictionary_learning"
    )
    assert done.exit_code == 0, done.output
    found = find(tmp_path / "out").tensors
    assert found["group_sizes"].tolist() == [5, 15]
    assert int(found["k"]) == 3
    assert torch.equal(found["W_dec"], own.core.W_dec["0"].detach())


@pytest.mark.parametrize("command", ["import", "export", "push"])
def test_help_has_an_example_that_parses(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its words are taken; that the file is not there is all that is wrong with it."""
    monkeypatch.chdir(tmp_path)
    output = run(command, "--help").output
    (example,) = [line for line in output.splitlines() if line.startswith(f" train {command} ")]
    assert "--json" in output
    done = run(*example.split()[1:])
    assert isinstance(done.exception, DictionaryError)
    assert "no such file" in str(done.exception)
