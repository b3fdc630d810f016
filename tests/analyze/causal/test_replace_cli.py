"""`analyze replace` from its options to its files."""

import json

import polars as pl
import pytest
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from analyze.causal import replace as replace_passes
from analyze.causal.replace_cli import replace
from harvest.run import harvest
from harvest.settings import Settings
from pipeline.command import make_app
from pipeline.config import Config
from pipeline.errors import CrossdiffError
from store.reader import Store
from train.dictionary.partition import dedicated, single_group

from .directed import directed, saved, spied

PLACES = ("model.layers.0", "model.layers.1")
NAMES = [f"{model}.{place}.out" for model in "ab" for place in PLACES]


@pytest.fixture(scope="module")
def twins(model_pair, corpus_file, tmp_path_factory):
    """Two models of one tokenizer and width, read at two layers each, and a dictionary."""
    folder = tmp_path_factory.mktemp("twins")
    other = AutoModelForCausalLM.from_pretrained(model_pair["a"])
    other.model.layers[0].mlp.up_proj.weight.data.mul_(-2)
    other.save_pretrained(folder / "b")
    AutoTokenizer.from_pretrained(model_pair["a"]).save_pretrained(folder / "b")
    model = {"hookpoint": list(PLACES), "dtype": "float32", "device": "cpu"}
    raw = {
        "run_dir": str(folder / "run"),
        "models": {
            "a": {"path": str(model_pair["a"]), **model},
            "b": {"path": str(folder / "b"), **model},
        },
        "corpus": {"path": str(corpus_file)},
        "harvest": {"max_tokens": 40},
        "analyze": {"batch_rows": 64},
    }
    config = Config("test.yaml", raw)
    harvest(Settings.read(config))
    (folder / "pipeline.yaml").write_text(yaml.safe_dump(raw))
    store = Store(config.store_path)
    one = directed(store, (NAMES[1], NAMES[3]), dedicated(("a", "b"), 16, {"a": 3, "b": 3}), 0.2)
    return folder, saved(one, folder / "one"), store


def call(twins, tmp_path, *words, dictionary=None):
    app = make_app("test")
    app.command()(replace)
    app.callback()(lambda: None)
    given = ["--config", twins[0] / "pipeline.yaml", "--dictionary", dictionary or twins[1]]
    given += ["--out", tmp_path / "tables", *words]
    return CliRunner().invoke(app, ["replace", *map(str, given)])


def test_the_table_the_bars_and_the_json_are_of_the_same_sets(twins, tmp_path):
    done = call(twins, tmp_path, "--documents", 6, "--draws", 2, "--bias", "--json")
    assert done.exit_code == 0, done.output
    value = json.loads(done.stdout)
    table = pl.read_parquet(tmp_path / "tables" / "replace.parquet")
    assert value["sets"] == table.to_dicts()
    assert [(line["set"], line["ranking"]) for line in value["sets"]] == [
        ("none", None), ("bias", None), ("random", "draw 1"), ("random", "draw 2"),
        ("worst", "norm"), ("best", "norm"), ("all", None), ("activations", None),
        ("target", None),
    ]  # fmt: skip
    assert {file.rsplit(".")[-1] for file in value["files"]} == {"parquet", "csv", "png", "html"}
    page = (tmp_path / "tables" / "replace.html").read_text(encoding="utf-8")
    assert "best half by norm (8)" in page


def test_passes_are_as_large_as_the_configuration_says(twins, tmp_path, monkeypatch):
    asked = spied(monkeypatch, replace_passes)
    words = ["--documents", 3, "--draws", 0, "--set", "analyze.batch_tokens=77"]
    assert call(twins, tmp_path, *words).exit_code == 0
    assert asked == {77}


def test_on_the_terminal_it_says_what_was_replaced_toward_what(twins, tmp_path):
    words = ["--documents", 3, "--draws", 0, "--base", "b", "--among", "a", "--among", "b"]
    done = call(twins, tmp_path, *words, "--ranking", "norm")
    assert done.exit_code == 0, done.output
    assert "b toward a at b.model.layers.1.out" in done.stdout
    assert "written:" in done.stdout
    table = pl.read_parquet(tmp_path / "tables" / "replace.parquet")
    assert table["features"].to_list() == [0, 3, 3, 6, 0, 0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--base", "c"], "--base c: the models are a, b"),
        (["--hookpoint", "x"], f"--hookpoint x: there is {NAMES[1]}"),
        (["--ranking", "q"], "--ranking q: no table exclusivity"),
        (["--ranking", "-norms.density"], "--ranking -norms.density: no table norms"),
        (["--among", "c"], "--among c: there are features of"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line_before_a_model_is_loaded(
    twins, tmp_path, monkeypatch, words, message
):
    def refuse(*_):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("analyze.causal.models.open_models", refuse)
    done = call(twins, tmp_path, *words)
    assert isinstance(done.exception, CrossdiffError)
    assert message in str(done.exception)
    assert "\n" not in str(done.exception)


def test_hookpoints_of_unequal_width_are_refused(known_store, dfc_folder, tmp_path):
    app = make_app("test")
    app.command()(replace)
    app.callback()(lambda: None)
    file = tmp_path / "pipeline.yaml"
    model = {"path": "nowhere", "hookpoint": "mid"}
    file.write_text(yaml.safe_dump({"models": {"a": model, "b": model}}))
    words = ["--config", file, "--store", known_store.path, "--dictionary", dfc_folder]
    done = CliRunner().invoke(app, ["replace", *map(str, words), "--out", str(tmp_path / "out")])
    assert isinstance(done.exception, CrossdiffError)
    assert str(done.exception) == (
        "a.mid.out has width 6, b.mid.out 8: decoders of unequal width have no difference to move "
        "activations by; try analyze steer, which needs none"
    )


def test_of_several_pairs_of_hookpoints_one_has_to_be_named(twins, tmp_path):
    _, _, store = twins
    four = directed(store, tuple(NAMES), single_group(("a", "b"), 8), 0.2)
    folder = saved(four, tmp_path / "four")
    done = call(twins, tmp_path, dictionary=folder)
    assert isinstance(done.exception, CrossdiffError)
    assert f"name one of {NAMES[0]}, {NAMES[1]}" in str(done.exception)
    done = call(
        twins, tmp_path, "--hookpoint", NAMES[0], "--documents", 3, "--draws", 0, dictionary=folder
    )
    assert done.exit_code == 0, done.output
