"""Hookpoints read through nnsight, against a plain forward hook on a plain transformers model."""

import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM

from harvest.models import HookedModel
from pipeline.config import ModelSpec
from pipeline.errors import ModelError

LAYERS = {"a": "model.layers", "b": "gpt_neox.layers"}
WIDTHS = {"a": 32, "b": 48}
INPUT_IDS = torch.arange(36).reshape(3, 12) % 300
MASK = torch.ones_like(INPUT_IDS)
MASK[1, 7:] = 0


def spec(model_pair, name: str, **changes) -> ModelSpec:
    given = {
        "path": str(model_pair[name]),
        "hookpoint": f"{LAYERS[name]}.1",
        "dtype": "float32",
        "device": "cpu",
        **changes,
    }
    return ModelSpec(**given)


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
    found = model.activations(INPUT_IDS, MASK)
    module = f"{LAYERS[name]}.1"
    wanted = plain_hook(model_pair[name], module, site, getattr(torch, dtype))
    assert found.dtype == wanted.dtype
    assert not found.requires_grad
    assert torch.equal(found, wanted)
    assert model.width == found.shape[2] == WIDTHS[name]
    assert model.hookpoint_name == f"{name}.{module}.{site}"


@pytest.mark.parametrize(("name", "module"), [("a", "self_attn"), ("b", "attention")])
def test_a_module_whose_output_is_a_tuple_gives_its_first_tensor(model_pair, name, module):
    path = f"{LAYERS[name]}.1.{module}"
    model = HookedModel(name, spec(model_pair, name, hookpoint=path))
    wanted = plain_hook(model_pair[name], path, "out", torch.float32)
    assert torch.equal(model.activations(INPUT_IDS, MASK), wanted)


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
    padded = model.activations(INPUT_IDS, MASK)[1, :7]
    alone = model.activations(INPUT_IDS[1:2, :7], MASK[1:2, :7])[0]
    torch.testing.assert_close(padded, alone, atol=1e-5, rtol=1e-5)


def test_an_unknown_hookpoint_names_its_neighbours_and_the_layers(model_pair):
    with pytest.raises(ModelError) as error:
        HookedModel("a", spec(model_pair, "a", hookpoint="model.layer.1"))
    assert "models.a.hookpoint" in str(error.value)
    assert "'model.layer.1'" in str(error.value)
    assert "model.layers.1" in str(error.value)
    assert "model.layers.0 to model.layers.2" in str(error.value)


@pytest.mark.parametrize("hookpoint", ["model.rotary_emb", "model.layers"])
def test_a_module_without_a_vector_per_token_is_refused(model_pair, hookpoint):
    with pytest.raises(ModelError, match=rf"a\.{hookpoint}\.out .*name a"):
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


def test_weights_that_were_cut_off_are_one_line(model_pair, tmp_path):
    shutil.copytree(model_pair["a"], tmp_path / "a")
    weights = tmp_path / "a" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match=r"models\.a\.path: .*cannot be loaded"):
        HookedModel("a", spec(model_pair, "a", path=str(tmp_path / "a")))
