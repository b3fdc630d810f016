"""Hookpoints read through nnsight, against a plain forward hook on a plain transformers model."""

import json
import logging
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertForMaskedLM,
    RobertaConfig,
    RobertaModel,
    T5Config,
    T5ForConditionalGeneration,
)
from transformers.utils import logging as verbosity

from harvest.models.hooked import HookedModel
from harvest.models.load import load_model
from pipeline.errors import ModelError
from pipeline.specs import ModelSpec

LAYERS = {"a": "model.layers", "b": "gpt_neox.layers"}
WIDTHS = {"a": 32, "b": 48}
INPUT_IDS = torch.arange(36).reshape(3, 12) % 300
MASK = torch.ones_like(INPUT_IDS)
MASK[1, 7:] = 0


def spec(model_pair, name: str, **changes) -> ModelSpec:
    given = {
        "path": str(model_pair[name]),
        "hookpoint": (f"{LAYERS[name]}.1",),
        "dtype": "float32",
        "device": "cpu",
        **changes,
    }
    return ModelSpec.model_validate(given)


def only(model: HookedModel) -> torch.Tensor:
    """The activations at the model's only hookpoint."""
    (value,) = model.activations(INPUT_IDS, MASK).values()
    return value


def plain_hook(path, module: str, site: str, dtype: torch.dtype) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype)
    seen = []

    def hook(_, arguments, output):
        value = arguments[0] if site == "in" else output
        seen.append(value[0] if isinstance(value, tuple) else value)

    model.get_submodule(module).register_forward_hook(hook)
    with torch.no_grad():
        model(input_ids=INPUT_IDS, attention_mask=MASK)
    return seen[0]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("site", ["in", "out"])
@pytest.mark.parametrize("name", ["a", "b"])
def test_activations_equal_a_plain_forward_hook_bit_for_bit(model_pair, name, site, dtype):
    model = HookedModel(name, spec(model_pair, name, site=site, dtype=dtype))
    found = only(model)
    module = f"{LAYERS[name]}.1"
    wanted = plain_hook(model_pair[name], module, site, getattr(torch, dtype))
    assert found.dtype == wanted.dtype
    assert not found.requires_grad
    assert torch.equal(found, wanted)
    (hookpoint,) = model.hookpoints
    assert hookpoint.width == found.shape[2] == WIDTHS[name]
    assert (hookpoint.name, hookpoint.model) == (f"{name}.{module}.{site}", name)


@pytest.mark.parametrize(("name", "module"), [("a", "self_attn"), ("b", "attention")])
def test_a_module_whose_output_is_a_tuple_gives_its_first_tensor(model_pair, name, module):
    path = f"{LAYERS[name]}.1.{module}"
    model = HookedModel(name, spec(model_pair, name, hookpoint=path))
    wanted = plain_hook(model_pair[name], path, "out", torch.float32)
    assert torch.equal(only(model), wanted)


@pytest.mark.parametrize(("site", "layers"), [("in", {"0"}), ("out", {"0", "1"})])
@pytest.mark.parametrize("name", ["a", "b"])
def test_nothing_behind_the_hookpoint_runs(model_pair, name, site, layers):
    model = HookedModel(name, spec(model_pair, name, site=site))
    ran = []
    for path, module in model._module.named_modules():
        if not list(module.children()):
            module.register_forward_pre_hook(lambda *_, path=path: ran.append(path))
    model.activations(INPUT_IDS, MASK)
    inside = f"{LAYERS[name]}."
    assert {path.removeprefix(inside)[0] for path in ran if path.startswith(inside)} == layers
    assert not any("lm_head" in path or "embed_out" in path for path in ran)


@pytest.mark.parametrize("name", ["a", "b"])
def test_padding_on_the_right_changes_nothing_before_it(model_pair, name):
    model = HookedModel(name, spec(model_pair, name))
    padded = only(model)[1, :7]
    (alone,) = model.activations(INPUT_IDS[1:2, :7], MASK[1:2, :7]).values()
    torch.testing.assert_close(padded, alone[0], atol=1e-5, rtol=1e-5)


def test_an_unknown_hookpoint_names_its_neighbours_and_the_layers(model_pair):
    with pytest.raises(ModelError) as error:
        HookedModel("a", spec(model_pair, "a", hookpoint="model.layer.1"))
    assert "models.a.hookpoint" in str(error.value)
    assert "'model.layer.1'" in str(error.value)
    assert "model.layers.1" in str(error.value)
    assert "model.layers.0 to model.layers.2" in str(error.value)


@pytest.mark.parametrize("hookpoint", ["model.rotary_emb", "model.layers"])
def test_a_module_without_a_vector_per_token_is_refused(model_pair, hookpoint):
    with pytest.raises(ModelError, match=rf"'{hookpoint}' .*{hookpoint}\.out .*name a"):
        HookedModel("a", spec(model_pair, "a", hookpoint=hookpoint))


def test_a_missing_folder_is_named(model_pair, tmp_path):
    with pytest.raises(ModelError, match=r"models\.a\.path: .*nowhere: no such folder"):
        HookedModel("a", spec(model_pair, "a", path=str(tmp_path / "nowhere")))


def test_a_folder_without_a_model_is_named(model_pair, tmp_path):
    with pytest.raises(ModelError, match=r"models\.a\.path: .*no config\.json"):
        HookedModel("a", spec(model_pair, "a", path=str(tmp_path)))


def test_a_folder_with_broken_weights_is_one_line(model_pair, tmp_path):
    (tmp_path / "config.json").write_text((model_pair["a"] / "config.json").read_text())
    with pytest.raises(ModelError, match=r"models\.a\.path: .*cannot be loaded") as error:
        HookedModel("a", spec(model_pair, "a", path=str(tmp_path)))
    assert "\n" not in str(error.value)


def test_a_device_that_is_not_there_is_named(model_pair):
    with pytest.raises(ModelError, match=r"models\.a\.device: 'warp'"):
        HookedModel("a", spec(model_pair, "a", device="warp"))


@pytest.mark.parametrize(("cuda", "usable"), [(False, "auto or cpu"), (True, "auto, cpu or cuda")])
def test_only_devices_that_are_there_are_suggested(model_pair, monkeypatch, cuda, usable):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    with pytest.raises(ModelError, match=rf"try {usable}$"):
        HookedModel("a", spec(model_pair, "a", device="cuda:99"))


def test_transformers_says_nothing_while_it_loads(tmp_path, capfd):
    """An encoder without its masked head would print a table of weights that are not used."""
    library, seen = logging.getLogger("transformers"), []
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = BertConfig(vocab_size=40, intermediate_size=16, **size)
    BertForMaskedLM(config).save_pretrained(tmp_path)
    capfd.readouterr()
    handler = logging.Handler()
    handler.emit = seen.append
    library.addHandler(handler)
    before = library.level, verbosity.is_progress_bar_enabled()
    try:
        given = {"path": str(tmp_path), "hookpoint": ("resid_post.0",), "device": "cpu"}
        load_model("a", ModelSpec.model_validate(given))
    finally:
        library.removeHandler(handler)
    assert seen == []
    assert capfd.readouterr().err == ""
    assert (library.level, verbosity.is_progress_bar_enabled()) == before


def test_weights_that_were_cut_off_are_one_line(model_pair, tmp_path):
    shutil.copytree(model_pair["a"], tmp_path / "a")
    weights = tmp_path / "a" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match=r"models\.a\.path: .*cannot be loaded"):
        HookedModel("a", spec(model_pair, "a", path=str(tmp_path / "a")))


def test_weights_that_lack_a_layer_are_refused(model_pair, tmp_path):
    """transformers would fill the layer with random numbers."""
    shutil.copytree(model_pair["a"], tmp_path / "a")
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    (tmp_path / "a" / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 4}))
    with pytest.raises(ModelError, match=r"models\.a\.path: .*lack 9 weights .*layers\.3\."):
        HookedModel("a", spec(model_pair, "a", path=str(tmp_path / "a")))


def test_an_attention_implementation_that_is_not_there_is_named(model_pair):
    with pytest.raises(
        ModelError, match=r"^models\.a\.attention: 'warp' .*eager, sdpa and"
    ) as error:
        HookedModel("a", spec(model_pair, "a", attention="warp"))
    assert "flex_attention" not in str(error.value)


def test_attention_is_not_blamed_for_weights_that_are_missing(model_pair, tmp_path):
    (tmp_path / "config.json").write_text((model_pair["a"] / "config.json").read_text())
    with pytest.raises(ModelError, match=r"^models\.a\.path: .*cannot be loaded"):
        HookedModel("a", spec(model_pair, "a", path=str(tmp_path), attention="eager"))


def test_attention_implementations_are_taken(model_pair):
    eager = HookedModel("a", spec(model_pair, "a", attention="eager"))
    assert eager._module.config._attn_implementation == "eager"
    torch.testing.assert_close(only(eager), only(HookedModel("a", spec(model_pair, "a"))))


def test_a_device_map_without_accelerate_names_the_package(model_pair, monkeypatch):
    monkeypatch.setattr("harvest.models.load.find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"models\.a\.device_map: 'auto' needs .* pip install"):
        HookedModel("a", spec(model_pair, "a", device_map="auto"))


def test_an_encoder_decoder_is_refused(model_pair, tmp_path):
    config = T5Config(vocab_size=40, d_model=16, d_ff=16, d_kv=8, num_layers=1, num_heads=2)
    T5ForConditionalGeneration(config).save_pretrained(tmp_path / "t5")
    with pytest.raises(ModelError, match=r"models\.a\.path: .*encoder-decoder"):
        HookedModel("a", spec(model_pair, "a", path=str(tmp_path / "t5")))


def test_the_context_leaves_out_positions_that_no_token_can_have(model_pair, tmp_path):
    """RoBERTa's table of 14 positions begins behind the padding id 1: 12 tokens fit, 13 do not."""
    shutil.copytree(model_pair["b"], tmp_path / "r")
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = RobertaConfig(
        vocab_size=400, intermediate_size=16, max_position_embeddings=14, pad_token_id=1, **shape
    )
    RobertaModel(config).save_pretrained(tmp_path / "r")
    changes = {"path": str(tmp_path / "r"), "hookpoint": ("resid_post.0",)}
    model = HookedModel("b", spec(model_pair, "b", **changes))
    assert model.context == 12
    ids = torch.full((1, 13), 5)
    model.activations(ids[:, :12], torch.ones(1, 12, dtype=torch.long))
    with pytest.raises(RuntimeError, match="out of bounds"):
        model.activations(ids, torch.ones_like(ids))


def test_vocabulary_and_context_are_those_of_the_config(model_pair):
    model = HookedModel("a", spec(model_pair, "a"))
    assert (model.vocabulary, model.context, model.bidirectional) == (520, 256, False)


def test_a_pass_that_failed_leaves_nothing_behind(model_pair):
    model = HookedModel("a", spec(model_pair, "a"))
    wanted = only(model)
    with pytest.raises(IndexError):
        model.activations(INPUT_IDS + 1000, MASK)
    assert torch.equal(only(model), wanted)


def test_models_in_two_threads_give_the_bits_of_one(model_pair):
    hookpoints = {"hookpoint": ("resid_pre.1", "heads.1", "mlp_out.0", "resid_post.2")}
    models = [HookedModel(name, spec(model_pair, name, **hookpoints)) for name in ("a", "b")]
    batches = [torch.randint(300, (1 + n % 3, 4 + n % 9)) for n in range(60)]

    def passes(model: HookedModel) -> list[dict[str, torch.Tensor]]:
        return [model.activations(ids, torch.ones_like(ids)) for ids in batches]

    wanted = [passes(model) for model in models]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(passes, models))
    finally:
        sys.setswitchinterval(interval)
    for own, others in zip(wanted, found, strict=True):
        for first, second in zip(own, others, strict=True):
            assert all(torch.equal(first[name], second[name]) for name in first)
