"""`harvest modules`: the tree with its shapes, found without loading any weights."""

import json
import logging

import pytest
import typer
from typer.testing import CliRunner

from harvest.models.modules import list_modules
from harvest.modules_cli import modules_
from pipeline.errors import ModelError
from pipeline.specs import ModelSpec

from .architectures import FAMILIES

runner = CliRunner()


@pytest.fixture(scope="module")
def configs(tmp_path_factory):
    """Folders with nothing but a config.json."""
    root = tmp_path_factory.mktemp("configs")
    for name, family in FAMILIES.items():
        family.build().config.save_pretrained(root / name)
    return root


@pytest.fixture(scope="module")
def app():
    program = typer.Typer()
    program.command()(modules_)
    return program


def spec(folder) -> ModelSpec:
    return ModelSpec(path=str(folder), hookpoint=("resid_post.0",))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_kind_names_its_module_without_weights(configs, family):
    tree = list_modules("m", spec(configs / family), layer=1)
    wanted = FAMILIES[family].kinds(1)
    found = {row.hookpoint: row.place for row in tree.kinds}
    assert {kind: found[kind] for kind in wanted} == {
        kind: f"{path}:{site}" for kind, (path, site) in wanted.items()
    }
    width = FAMILIES[family].heads_width
    heads = {row.hookpoint: row.width for row in tree.kinds}
    assert heads["heads.1"] == width
    assert heads["each_head.1"] == width // FAMILIES[family].heads


def test_a_kind_that_cannot_be_told_says_why(configs):
    kinds = {row.hookpoint: row for row in list_modules("m", spec(configs / "opt")).kinds}
    assert kinds["mlp_in.0"].place is None
    assert "more than one MLP" in str(kinds["mlp_in.0"].reason)


def test_shapes_count_texts_and_tokens_by_name(configs):
    rows = {row.path: row for row in list_modules("m", spec(configs / "llama")).modules}
    assert rows["model.layers.0.self_attn.k_proj"].output == ["texts", "tokens", 16]
    assert rows["model.embed_tokens"].input == ["texts", "tokens"]
    assert rows["lm_head"].output == ["texts", "tokens", 320]
    assert rows["model.layers"].output is None


def test_layers_that_look_alike_are_shown_once(configs):
    shown = list_modules("m", spec(configs / "llama"))
    assert {row.path: row.alike for row in shown.modules}["model.layers.0"] == 2
    assert not any(row.path.startswith("model.layers.1") for row in shown.modules)
    everything = list_modules("m", spec(configs / "llama"), everything=True)
    layer = [row for row in shown.modules if row.path.startswith("model.layers.0")]
    assert len(everything.modules) == len(shown.modules) + 2 * len(layer)
    assert not any(row.alike for row in everything.modules)


def test_a_layer_that_differs_is_shown_beside_the_others(configs):
    """The first layer of this mixture of experts has none."""
    rows = {row.path: row for row in list_modules("m", spec(configs / "qwen3_moe")).modules}
    assert (rows["model.layers.0"].alike, rows["model.layers.1"].alike) == (0, 1)
    assert "model.layers.1.mlp.experts" in rows
    assert "model.layers.2" not in rows


def test_the_layer_asked_for_is_the_one_shown(configs):
    rows = [row.path for row in list_modules("m", spec(configs / "gpt2"), layer=-1).modules]
    assert "transformer.h.2.attn.c_proj" in rows
    assert not any(path.startswith("transformer.h.0") for path in rows)


def test_a_layer_that_is_not_there_is_one_line(configs):
    with pytest.raises(ModelError, match=r"--layer 9 .* model\.layers\.0 to model\.layers\.2"):
        list_modules("m", spec(configs / "llama"), layer=9)


def test_a_model_that_fake_tensors_cannot_run_is_loaded(configs, tmp_path, monkeypatch):
    folder = FAMILIES["llama"].save(tmp_path / "llama")
    import harvest.models.modules as modules

    seen = []
    observe = modules.observe

    def refuses_meta(module, device):
        seen.append(device.type)
        if device.type == "meta":
            raise RuntimeError("data-dependent")
        return observe(module, device)

    without = list_modules("m", spec(folder))
    monkeypatch.setattr(modules, "observe", refuses_meta)
    loaded = ModelSpec(path=str(folder), hookpoint=("resid_post.0",), device="cpu")
    assert list_modules("m", loaded) == without
    assert seen == ["meta", "cpu"]


def test_the_command_takes_a_model_of_the_configuration_or_a_folder(configs, tmp_path, app):
    config = tmp_path / "pipeline.yaml"
    models = {"base": {"path": str(configs / "llama"), "hookpoint": "resid_post.1"}}
    config.write_text(json.dumps({"models": models}))
    named = runner.invoke(app, ["base", "--config", str(config), "--json"])
    by_path = runner.invoke(app, [str(configs / "llama"), "--config", str(config), "--json"])
    assert named.exit_code == by_path.exit_code == 0
    assert json.loads(named.stdout) == json.loads(by_path.stdout)
    assert json.loads(named.stdout)["layers"] == 3


@pytest.mark.parametrize("configured", [True, False])
def test_what_is_no_model_is_named_as_typed(tmp_path, app, monkeypatch, configured):
    config = tmp_path / "pipeline.yaml"
    spec = {"path": "x", "hookpoint": "resid_post.1"}
    config.write_text(json.dumps({"models": {"base": spec, "chat": spec}} if configured else {}))
    monkeypatch.chdir(tmp_path)
    known = "; the configuration's models are base, chat" if configured else ""
    (tmp_path / "empty").mkdir()
    error = runner.invoke(app, ["empty"]).exception
    assert isinstance(error, ModelError)
    assert str(error) == f"empty: no model there (no config.json){known}"


def test_the_hub_s_retries_are_not_shown(tmp_path, app, monkeypatch):
    """Its client logs a warning per try; one error says it all."""
    client, seen = logging.getLogger("huggingface_hub"), []
    handler = logging.Handler()
    handler.emit = seen.append

    def unreachable(*_, **__):
        client.warning("Retrying in 1s")
        raise OSError("cannot connect")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", unreachable)
    client.addHandler(handler)
    level = client.level
    try:
        error = runner.invoke(app, ["nope"]).exception
    finally:
        client.removeHandler(handler)
    assert str(error) == "nope: its config cannot be loaded (cannot connect)"
    assert (seen, client.level) == ([], level)


def test_paths_are_printed_whole_on_a_narrow_terminal(configs, app, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    shown = runner.invoke(app, [str(configs / "gpt_neox")])
    lines = [line.split() for line in shown.stdout.splitlines()]
    assert ["gpt_neox.layers.0.attention.query_key_value", "Linear"] in [line[:2] for line in lines]
    assert ["heads.0", "gpt_neox.layers.0.attention.dense:in", "32"] in lines
    assert "2 more like gpt_neox.layers.0" in shown.stdout
