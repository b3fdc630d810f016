"""`analyze fidelity` on a harvested store and a dictionary in a folder."""

import json

import polars as pl
import pytest
import torch
import yaml
from typer.testing import CliRunner

from analyze.causal.fidelity_cli import fidelity
from harvest.run import harvest
from harvest.settings import Settings
from pipeline.command import make_app
from pipeline.errors import ConfigError, StoreError
from store.reader import Store
from train.dictionary.activation import ReLU
from train.dictionary.artifact import save_dictionary
from train.dictionary.crosscoder import Crosscoder, HookpointShape
from train.dictionary.partition import dedicated

APP = make_app("a program of one command")
APP.command()(fidelity)


def run(*words):
    return CliRunner().invoke(APP, [str(word) for word in words])


def save(config, store, held_out: float):
    """A dictionary beside the store, and the configuration file of both."""
    hookpoints = tuple(HookpointShape(h.name, h.model, h.width) for h in store.schema.hookpoints)
    partition = dedicated(("a", "b"), 32, {"a": 0.25, "b": 0.25})
    dictionary = Crosscoder(hookpoints, partition, activation=ReLU())
    with torch.no_grad():
        for weights in dictionary.parameters():
            weights.copy_(torch.linspace(-0.1, 0.1, weights.numel()).reshape(weights.shape))
    provenance = {"recipe": "dfc", "train": {"validation_fraction": held_out}}
    save_dictionary(config.dictionary_path, dictionary, provenance)
    file = config.run_dir / "pipeline.yaml"
    file.write_text(yaml.safe_dump(config.raw))
    return file


@pytest.fixture(scope="module")
def config_file(harvested):
    return save(*harvested, held_out=0.5)


def test_it_writes_a_table_and_pictures_of_held_out_documents(harvested, config_file, tmp_path):
    _, store = harvested
    done = run("--config", config_file, "--out", tmp_path, "--json")
    assert done.exit_code == 0, done.output
    value = json.loads(done.stdout)
    written = pl.read_parquet(tmp_path / "fidelity.parquet")
    assert written.to_dicts() == value["fidelity"]
    labels = store.documents.validation_mask(0.5)
    assert 0 < value["documents"] <= labels.sum()
    assert (value["of"], value["left_out"]) == ("held out", {})
    names = [f"fidelity.{kind}" for kind in ("parquet", "csv", "png", "html")]
    assert [file.rpartition("/")[2] for file in value["files"]] == names
    assert all((tmp_path / name).stat().st_size > 0 for name in names)
    again = run("--config", config_file, "--out", tmp_path / "again", "--json")
    assert json.loads(again.stdout)["fidelity"] == value["fidelity"]


def test_the_terminal_shows_it_within_eighty_columns(config_file, tmp_path):
    done = run("--config", config_file, "--out", tmp_path, "--documents", 3)
    assert done.exit_code == 0, done.output
    assert "next-token predictions in 3 documents (held out), nats" in done.stdout
    assert "recovered" in done.stdout
    assert "…" not in done.stdout


def test_what_held_nothing_out_is_measured_on_all_documents(harvested, tmp_path):
    config, store = harvested
    file = save(config, store, held_out=0.0)
    done = run("--config", file, "--out", tmp_path, "--json")
    assert json.loads(done.stdout)["of"] == "of all"
    save(config, store, held_out=0.5)


def test_a_configuration_without_models_is_refused_before_anything_is_read(tmp_path):
    file = tmp_path / "pipeline.yaml"
    file.write_text("run_dir: nowhere\n")
    done = run("--config", file)
    assert isinstance(done.exception, ConfigError)
    assert "models: missing" in str(done.exception)


def test_a_store_of_chats_alone_is_refused(configure, tmp_path):
    chat = [{"role": "user", "content": "It is a truth"}, {"role": "assistant", "content": "a man"}]
    chats, template = tmp_path / "chats.jsonl", tmp_path / "template.jinja"
    chats.write_text("".join(json.dumps({"chat": chat}) + "\n" for _ in range(3)))
    template.write_text("{% for m in messages %}[{{ m.role }}]{{ m.content }}\n{% endfor %}")
    config = configure(corpus={"path": str(chats), "chat_column": "chat"})
    for spec in config.raw["models"].values():
        spec["chat_template"] = str(template)
    harvest(Settings.read(config))
    done = run("--config", save(config, Store(config.store_path), held_out=0.0))
    assert isinstance(done.exception, StoreError)
    assert "no text of it can be run again (3 chats" in str(done.exception)
