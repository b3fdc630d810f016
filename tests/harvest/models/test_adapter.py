"""A PEFT adapter on a model: read from safetensors, put into the modules that were there."""

import shutil
import warnings

import pytest
import torch
from safetensors.torch import load_file

from harvest.models.hooked import HookedModel
from pipeline.errors import ModelError
from pipeline.specs import ModelSpec

from .architectures import FAMILIES

IDS = torch.arange(12).reshape(2, 6)
HOOKPOINTS = ("attn_out.1", "heads.1", "resid_post.-1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return FAMILIES["llama"].save(tmp_path_factory.mktemp("base") / "llama")


def spec(folder, adapter) -> ModelSpec:
    return ModelSpec(
        path=str(folder),
        hookpoint=HOOKPOINTS,
        dtype="float32",
        device="cpu",
        adapter=None if adapter is None else str(adapter),
    )


@pytest.fixture
def adapter(folder, tmp_path):
    """A LoRA with random weights in both its factors, so that it changes something."""
    peft = pytest.importorskip("peft")
    torch.manual_seed(1)
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "o_proj"], init_lora_weights=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by an old name
        peft.get_peft_model(FAMILIES["llama"].build(), config).save_pretrained(tmp_path / "lora")
    return tmp_path / "lora"


def test_an_adapted_model_equals_one_with_the_adapter_merged_by_hand(folder, adapter, tmp_path):
    weights = load_file(adapter / "adapter_model.safetensors")
    merged = FAMILIES["llama"].build()
    for key, down in weights.items():
        if "lora_A" in key:
            path = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            up = weights[key.replace("lora_A", "lora_B")]
            scale = 8 / 2  # lora_alpha / r
            merged.get_submodule(path).weight.data += scale * up @ down
    shutil.copytree(folder, tmp_path / "merged")
    merged.save_pretrained(tmp_path / "merged")
    adapted = HookedModel("m", spec(folder, adapter)).activations(IDS, torch.ones_like(IDS))
    wanted = HookedModel("m", spec(tmp_path / "merged", None)).activations(
        IDS, torch.ones_like(IDS)
    )
    plain = HookedModel("m", spec(folder, None)).activations(IDS, torch.ones_like(IDS))
    assert [*adapted] == [*wanted] == [*plain]
    for name, value in adapted.items():
        torch.testing.assert_close(value, wanted[name], atol=1e-5, rtol=1e-4)
        assert not torch.allclose(value, plain[name], atol=1e-3)


def test_an_adapter_of_another_model_is_refused(adapter, tmp_path):
    other = FAMILIES["gpt_neox"].save(tmp_path / "other")
    with pytest.raises(ModelError, match=r"models\.m\.adapter: ") as error:
        HookedModel("m", spec(other, adapter))
    assert "\n" not in str(error.value)


def test_without_the_package_the_remedy_is_named(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("harvest.models.load.find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"models\.m\.adapter: .*peft; pip install crossdiff"):
        HookedModel("m", spec(folder, tmp_path))


def test_an_adapter_that_is_only_a_pickle_is_refused(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("harvest.models.load.find_spec", lambda name: name)
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(ModelError, match=r"models\.m\.adapter: .*no adapter_model\.safetensors"):
        HookedModel("m", spec(folder, tmp_path))
