"""`train import` and `train export` as commands."""

import json
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner, Result

from pipeline.errors import DictionaryError
from train.dictionary.artifact import load_dictionary
from train.formats.cli import export, import_
from train.formats.files import find

from .foreign import DEDICATED, layered_state, same_bits, single_state

app = typer.Typer()
app.command("import")(import_)
app.command("export")(export)


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


def test_refusals(tmp_path: Path) -> None:
    torch.save(single_state("AutoEncoder"), tmp_path / "ae.pt")
    out = tmp_path / "own"
    assert run("import", tmp_path, "--out", out).exit_code == 0
    again = run("import", tmp_path, "--out", out)
    assert isinstance(again.exception, DictionaryError)
    assert "holds a config.json already" in str(again.exception)
    other = run("export", out, "--out", tmp_path / "x", "--format", "onnx")
    assert str(other.exception) == "--format onnx: known are dictionary_learning, sae_lens"


@pytest.mark.parametrize("command", ["import", "export"])
def test_help_names_every_option(command: str) -> None:
    output = run(command, "--help").output
    assert "--out" in output
    assert "--json" in output
