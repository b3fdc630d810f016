"""SAELens folders: read, written, and there and back; oracles from its architectures' formulas."""

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from pipeline.errors import DictionaryError
from train.dictionary.activation import TopK
from train.formats.files import find
from train.formats.read import import_dictionary
from train.formats.write import export_dictionary

from .foreign import D, F, K, Random, largest, rows, same_bits

ARCHITECTURES = ("standard", "topk", "jumprelu", "gated")


def tensors_of(architecture: str, width_out: int = D, seed: int = 0) -> dict[str, Tensor]:
    r = Random(seed)
    tensors = {"W_enc": r(D, F), "W_dec": r(F, width_out), "b_dec": r(width_out)}
    if architecture == "gated":
        return {**tensors, "b_gate": r(F), "b_mag": r(F), "r_mag": 0.3 * r(F)}
    tensors["b_enc"] = r(F)
    if architecture.startswith("jumprelu"):
        tensors["threshold"] = r(F).abs()
    return tensors


def config_of(architecture: str, **more: Any) -> dict[str, Any]:
    return {
        "d_in": D,
        "d_sae": F,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": not architecture.endswith("transcoder"),
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {"sae_lens_version": "6.54.12", "hook_name": "blocks.3.hook_resid_post"},
        "architecture": architecture,
        **({"k": K, "rescale_acts_by_decoder_norm": False} if architecture == "topk" else {}),
        **more,
    }


def save(folder: Path, tensors: dict[str, Tensor], config: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    safetensors.torch.save_file(tensors, folder / "sae_weights.safetensors")
    (folder / "cfg.json").write_text(json.dumps(config))
    return folder


def forward(architecture: str, s: dict[str, Tensor], x: Tensor, config: dict[str, Any]) -> Tensor:
    """x_hat as sae-lens computes it."""
    x = x - s["b_dec"] if config["apply_b_dec_to_input"] else x
    if architecture == "gated":
        on = x @ s["W_enc"] + s["b_gate"] > 0
        f = on * torch.relu(x @ (s["W_enc"] * s["r_mag"].exp()) + s["b_mag"])
        return f @ s["W_dec"] + s["b_dec"]
    pre = x @ s["W_enc"] + s["b_enc"]
    f = torch.relu(pre)
    if architecture == "topk":
        norms = s["W_dec"].norm(dim=1) if config["rescale_acts_by_decoder_norm"] else 1.0
        f = f * largest(pre * norms, config["k"])
    elif architecture.startswith("jumprelu"):
        f = f * (pre > s["threshold"])
    return f @ s["W_dec"] + s["b_dec"]


def reconstruct(folder: Path, x: Tensor) -> Tensor:
    dictionary = import_dictionary(folder).dictionary
    return dictionary.decode(dictionary.encode({"model": x}))["model"]


@pytest.mark.parametrize("subtracts", [True, False])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_reading(tmp_path: Path, architecture: str, subtracts: bool) -> None:
    config = config_of(architecture, apply_b_dec_to_input=subtracts)
    tensors, x = tensors_of(architecture), rows(64, 5, torch.float32, D)
    got = reconstruct(save(tmp_path, tensors, config), x)
    expected = forward(architecture, tensors, x, config)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=2e-4)


def test_topk_ranked_by_decoder_norm(tmp_path: Path) -> None:
    tensors, x = tensors_of("topk"), rows(64, 5, torch.float32, D)
    config = config_of("topk", rescale_acts_by_decoder_norm=True)
    expected = forward("topk", tensors, x, config)
    got = reconstruct(save(tmp_path, tensors, config), x)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=2e-4)
    plain = forward("topk", tensors, x, config_of("topk"))
    assert not torch.allclose(plain, expected, atol=0.1)


@pytest.mark.parametrize("rescaled", [False, True])
@pytest.mark.parametrize("architecture", ["batchtopk", "matryoshka_batchtopk"])
def test_training_checkpoints(tmp_path: Path, architecture: str, rescaled: bool) -> None:
    threshold = torch.tensor(1.5, dtype=torch.float64)
    tensors = {**tensors_of("standard"), "topk_threshold": threshold}
    x = rows(64, 5, torch.float32, D)
    config = config_of(architecture, k=4.0, rescale_acts_by_decoder_norm=rescaled)
    norms = tensors["W_dec"].norm(dim=1) if rescaled else torch.ones(F)
    f = torch.relu((x - tensors["b_dec"]) @ tensors["W_enc"] + tensors["b_enc"])
    expected = (f * (f * norms > 1.5)) @ tensors["W_dec"] + tensors["b_dec"]
    got = reconstruct(save(tmp_path, tensors, config), x)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=2e-4)


@pytest.mark.parametrize("architecture", ["transcoder", "jumprelu_transcoder"])
def test_transcoders(tmp_path: Path, architecture: str) -> None:
    tensors, config = tensors_of(architecture, 9), config_of(architecture, d_out=9)
    folder, x = save(tmp_path / "in", tensors, config), rows(64, 5, torch.float32, D)
    imported = import_dictionary(folder, models=("m",), hookpoints=("mlp.in", "mlp.out"))
    dictionary = imported.dictionary
    got = dictionary.decode(dictionary.encode({"mlp.in": x, "mlp.out": torch.zeros(64, 9)}))
    assert list(got) == ["mlp.out"]
    expected = forward(architecture, tensors, x, config)
    torch.testing.assert_close(got["mlp.out"], expected, rtol=1e-5, atol=2e-4)
    export_dictionary(dictionary, tmp_path / "out", "sae_lens", source=imported.source)
    assert same_bits(find(tmp_path / "out").tensors, tensors)
    assert find(tmp_path / "out").config == config


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_there_and_back(tmp_path: Path, architecture: str) -> None:
    tensors, config = tensors_of(architecture), config_of(architecture)
    if architecture == "jumprelu":
        tensors["threshold"] = tensors["threshold"] - 0.5
    if architecture == "topk":
        config["rescale_acts_by_decoder_norm"] = True
    imported = import_dictionary(save(tmp_path / "in", tensors, config))
    out = tmp_path / "out"
    exported = export_dictionary(imported.dictionary, out, "sae_lens", source=imported.source)
    assert exported.files == ["sae_weights.safetensors", "cfg.json"]
    assert exported.kind == architecture
    assert same_bits(find(out).tensors, tensors)
    assert find(out).config == config


def test_configurations_before_version_6(tmp_path: Path) -> None:
    tensors, x = tensors_of("topk"), rows(64, 5, torch.float32, D)
    config = {
        "d_in": D,
        "d_sae": F,
        "dtype": "torch.float32",
        "activation_fn_str": "topk",
        "activation_fn_kwargs": {"k": K},
        "normalize_activations": None,
    }
    got = reconstruct(save(tmp_path, tensors, config), x)
    expected = forward("topk", tensors, x, config_of("topk"))
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=2e-4)
    assert import_dictionary(tmp_path).dictionary.activation == TopK(K)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"architecture": "temporal"}, "architecture 'temporal'"),
        ({"activation_fn": "tanh-relu"}, "activation 'tanh-relu'"),
        ({"normalize_activations": "layer_norm"}, "rescales every row by itself"),
        ({"architecture": "jumprelu"}, "no threshold in a jumprelu"),
        ({"architecture": "topk", "k": None}, "no k in it"),
    ],
)
def test_what_is_refused(tmp_path: Path, more: dict[str, Any], message: str) -> None:
    folder = save(tmp_path, tensors_of("standard"), {**config_of("standard"), **more})
    with pytest.raises(DictionaryError, match=message):
        import_dictionary(folder)


def test_a_finetuned_scale_is_refused_and_one_of_ones_is_not(tmp_path: Path) -> None:
    tensors = {**tensors_of("standard"), "scaling_factor": torch.ones(F)}
    import_dictionary(save(tmp_path, tensors, config_of("standard")))
    tensors["scaling_factor"][3] = 1.25
    with pytest.raises(DictionaryError, match="scaling_factor"):
        import_dictionary(save(tmp_path, tensors, config_of("standard")))


def test_without_its_configuration(tmp_path: Path) -> None:
    save(tmp_path, tensors_of("standard"), {})
    (tmp_path / "cfg.json").unlink()
    with pytest.raises(DictionaryError, match=r"no cfg\.json beside it"):
        import_dictionary(tmp_path)


def test_normalization_that_is_elsewhere_is_said(tmp_path: Path) -> None:
    config = config_of("standard", normalize_activations="expected_average_only_in")
    imported = import_dictionary(save(tmp_path, tensors_of("standard"), config))
    assert any("expected_average_only_in" in note for note in imported.notes)
