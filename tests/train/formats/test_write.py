"""Dictionaries of this project written out: the foreign forward pass gives the same."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.errors import DictionaryError
from train.dictionary.activation import Activation, BatchTopK, Gated, JumpReLU, ReLU, TopK
from train.dictionary.artifact import save_dictionary
from train.dictionary.crosscoder import Crosscoder, HookpointShape
from train.dictionary.partition import Partition, dedicated, single_group
from train.formats.files import find
from train.formats.write import export_dictionary

from .foreign import D, F, K, Random, layered_forward, rows, single_forward
from .test_sae_lens import forward as sae_lens_forward

ACTIVATIONS: tuple[Activation, ...] = (ReLU(), TopK(K), BatchTopK(), JumpReLU(), Gated())


def filled(dictionary: Crosscoder, seed: int = 0) -> Crosscoder:
    """Random weights, thresholds above 0, scales about 1."""
    r = Random(seed, torch.float64)
    state = dictionary.state_dict()
    for name, value in state.items():
        value.copy_(r(*value.shape))
        if name == "threshold":
            value.abs_().add_(0.3)
        elif name == "scale":
            value.abs_().add_(0.5)
        elif name == "norm_scale":
            value.fill_(1.0)
        elif name == "r_mag":
            value.mul_(0.3)
    dictionary.load_state_dict(state)
    return dictionary.eval()


def single(activation: Activation, normalization: Any, center: bool, means: bool) -> Crosscoder:
    shapes = (HookpointShape("m", "m", D),)
    return filled(
        Crosscoder(
            shapes,
            single_group(("m",), F),
            normalization,
            torch.float64,
            activation=activation,
            center=center,
            means=means,
        )
    )


def pair(
    partition: Partition, activation: Activation, normalization: Any = "crosscoder", **options: Any
) -> Crosscoder:
    shapes = (HookpointShape("a", "a", D), HookpointShape("b", "b", D))
    return filled(
        Crosscoder(
            shapes, partition, normalization, torch.float64, activation=activation, **options
        )
    )


def reconstruct(dictionary: Crosscoder, x: Tensor) -> Tensor:
    """(B, L, D) of x (B, L, D)."""
    names = [hookpoint.name for hookpoint in dictionary.hookpoints]
    back = dictionary.decode(dictionary.encode({n: x[:, i] for i, n in enumerate(names)}))
    return torch.stack([back[name] for name in names], dim=1)


@pytest.mark.parametrize("means", [False, True])
@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize(
    ("activation", "normalization"),
    [
        (activation, normalization)
        for activation in ACTIVATIONS
        for normalization in ("none", "crosscoder", "mixed", "decoupled")
        if (activation.kind, normalization) != ("topk", "decoupled")
    ],
    ids=lambda value: getattr(value, "kind", value),
)
def test_single_models(
    tmp_path: Path, activation: Activation, normalization: str, center: bool, means: bool
) -> None:
    dictionary = single(activation, normalization, center, means)
    x = rows(64, 5, torch.float64, D)
    expected = reconstruct(dictionary, x[:, None])[:, 0]
    exported = export_dictionary(dictionary, tmp_path / "dl", "dictionary_learning", k=K)
    found = find(tmp_path / "dl")
    subtracts = bool(found.setting("apply_b_dec_to_input"))
    got = single_forward(exported.kind, found.tensors, x, subtracts)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
    exported = export_dictionary(dictionary, tmp_path / "sl", "sae_lens")
    found = find(tmp_path / "sl")
    got = sae_lens_forward(exported.kind, found.tensors, x, found.config)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("means", [False, True])
@pytest.mark.parametrize("normalization", ["crosscoder", "sae", "mixed", "none", "decoupled"])
@pytest.mark.parametrize("activation", [ReLU(), BatchTopK()], ids=lambda a: a.kind)
@pytest.mark.parametrize("exclusive", [None, {"a": 0.1, "b": 0.3}])
def test_crosscoders_and_dfcs(
    tmp_path: Path, exclusive: Any, activation: Activation, normalization: str, means: bool
) -> None:
    models = ("a", "b")
    partition = dedicated(models, F, exclusive) if exclusive else single_group(models, F)
    dictionary = pair(partition, activation, normalization, means=means)
    x = rows(64, 5, torch.float64, 2, D)
    exported = export_dictionary(dictionary, tmp_path, "dictionary_learning", k=K)
    assert exported.kind == ("DedicatedFeature" if exclusive else "") + (
        "CrossCoder" if activation.kind == "relu" else "BatchTopKCrossCoder"
    )
    found = find(tmp_path)
    t = found.tensors
    mean, s = t["activation_mean"].double(), t["activation_global_scale"].double()[:, None]
    got = layered_forward(t, (x - mean) * s, normalization) / s + mean
    torch.testing.assert_close(got, reconstruct(dictionary, x), rtol=1e-4, atol=1e-4)
    if exclusive:
        config = found.other["_partition_config"]
        sizes = [int(F * config[f"model_{m}_exclusive_pct"]) for m in models]
        assert sizes == [2, 6]
        assert not t["encoder.weight"][0, :, 2:8].any()
        assert not t["decoder.weight"][1, :2].any()


def test_groups_that_are_empty(tmp_path: Path) -> None:
    dictionary = pair(dedicated(("a", "b"), F, {"a": 0.0, "b": 0.5}), BatchTopK())
    exported = export_dictionary(dictionary, tmp_path, "dictionary_learning", k=K)
    assert exported.kind == "DedicatedFeatureBatchTopKCrossCoder"
    config = find(tmp_path).other["_partition_config"]
    assert (config["model_a_exclusive_pct"], config["model_b_exclusive_pct"]) == (0, 0.5)


def test_what_cannot_be_written(tmp_path: Path) -> None:
    def refused(dictionary: Crosscoder, format: Any, message: str, **options: Any) -> None:
        with pytest.raises(DictionaryError, match=message):
            export_dictionary(dictionary, tmp_path / "out", format, **options)
        assert not (tmp_path / "out").exists()

    both = single_group(("a", "b"), F)
    dl = "dictionary_learning"
    refused(pair(both, BatchTopK()), "sae_lens", "a format of one hookpoint, the dictionary has a")
    refused(pair(both, JumpReLU()), dl, "its activation is jump_relu", k=K)
    refused(pair(both, BatchTopK(), "per_model"), dl, "per_model has no number there", k=K)
    refused(pair(both, BatchTopK()), dl, "add --k NUMBER")
    refused(pair(both, ReLU(), center=True), dl, "subtracts b_dec from its inputs")
    refused(single(BatchTopK(), "none", True, False), "ONNX", "format 'ONNX': known are dict")
    folded = pair(both, BatchTopK())
    folded.norm_scale[1] = 2.0
    refused(folded, dl, "export the unfolded dictionary", k=K)
    shapes = (HookpointShape("a", "a", D), HookpointShape("b", "b", D + 1))
    refused(Crosscoder(shapes, both), dl, r"widths differ \(a 6, b 7\)", k=K)
    three = tuple(HookpointShape(m, m, D) for m in "abc")
    refused(Crosscoder(three, dedicated(("a", "b", "c"), F, {}), activation=ReLU()), dl, "3 models")


def test_other_dictionaries_are_not_overwritten(tmp_path: Path) -> None:
    dictionary = single(ReLU(), "none", True, False)
    save_dictionary(tmp_path / "own", dictionary, {})
    for format in ("dictionary_learning", "sae_lens"):
        with pytest.raises(DictionaryError, match=r"holds model\.safetensors already"):
            export_dictionary(dictionary, tmp_path / "own", format)
    with pytest.raises(DictionaryError, match="holds a dictionary of this project"):
        export_dictionary(dictionary, tmp_path / "own", "dictionary_learning", as_safetensors=True)
    export_dictionary(dictionary, tmp_path / "out", "dictionary_learning")
    export_dictionary(dictionary, tmp_path / "out", "dictionary_learning")
