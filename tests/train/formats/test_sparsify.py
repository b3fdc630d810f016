"""sparsify folders, against its formulas."""

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from pipeline.errors import DictionaryError
from train.formats.read import import_dictionary

from .foreign import D, F, K, Random, largest, rows


def save(folder: Path, **config: Any) -> dict[str, Tensor]:
    r = Random(0)
    tensors = {"encoder.weight": r(F, D), "encoder.bias": r(F), "W_dec": r(F, D), "b_dec": r(D)}
    safetensors.torch.save_file(tensors, folder / "sae.safetensors")
    defaults = {"activation": "topk", "k": K, "d_in": D, "num_latents": F, "transcode": False}
    (folder / "cfg.json").write_text(json.dumps({**defaults, **config}))
    return tensors


def forward(t: dict[str, Tensor], x: Tensor) -> Tensor:
    """x_hat of an x from which b_dec was subtracted, or not."""
    f = torch.relu(x @ t["encoder.weight"].T + t["encoder.bias"])
    return (f * largest(f, K)) @ t["W_dec"] + t["b_dec"]


def test_autoencoder(tmp_path: Path) -> None:
    tensors, x = save(tmp_path), rows(64, 5, torch.float32, D)
    dictionary = import_dictionary(tmp_path, models=("pythia",)).dictionary
    got = dictionary.decode(dictionary.encode({"pythia": x}))["pythia"]
    torch.testing.assert_close(got, forward(tensors, x - tensors["b_dec"]), rtol=1e-5, atol=1e-4)


def test_transcoder(tmp_path: Path) -> None:
    tensors, x = save(tmp_path, transcode=True), rows(64, 5, torch.float32, D)
    dictionary = import_dictionary(tmp_path).dictionary
    got = dictionary.decode(dictionary.encode({"in": x, "out": torch.zeros(64, D)}))
    assert list(got) == ["out"]
    torch.testing.assert_close(got["out"], forward(tensors, x), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"activation": "groupmax"}, "activation 'groupmax'"),
        ({"skip_connection": True}, "skip connection"),
        ({"k": 0}, r"no k in it or beside it \(0\)"),
    ],
)
def test_what_is_refused(tmp_path: Path, config: dict[str, Any], message: str) -> None:
    save(tmp_path, **config)
    with pytest.raises(DictionaryError, match=message):
        import_dictionary(tmp_path)
