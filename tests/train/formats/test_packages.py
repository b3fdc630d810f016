"""The packages that own a format, where they are installed, agree with what is read and written.

To run them, in a virtual environment of their own:

    pip install -e '.[dev,formats]'
    pip install --no-deps dictionary-learning==0.1.0
    python -m pytest tests/train/formats

dictionary-learning 0.1.0 asks for nnsight below 0.4, and this project for 0.8: it goes without its
dependencies, of which the tests need none. Tested: sae-lens 6.54.12, eai-sparsify 1.3.3.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from train.dictionary.activation import BatchTopK, Gated, JumpReLU, ReLU, TopK
from train.formats.read import import_dictionary
from train.formats.write import export_dictionary

from .foreign import D, F, K, rows
from .test_write import reconstruct, single

pytestmark = pytest.mark.filterwarnings("default")
CLOSE: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-4}


def package(name: str) -> Any:
    """The module, imported when a test wants it: these packages are slow to import."""
    return pytest.importorskip(name, exc_type=ImportError)


def random_(module: torch.nn.Module) -> Any:
    """Random parameters; thresholds above 0."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in module.named_parameters():
            value.copy_(torch.randn(value.shape, generator=generator))
            if name == "threshold":
                value.abs_()
            elif name == "r_mag":
                value.mul_(0.3)
    return module


@pytest.mark.parametrize("means", [False, True])
@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize(
    "activation", [ReLU(), TopK(K), BatchTopK(), JumpReLU(), Gated()], ids=lambda a: a.kind
)
def test_sae_lens_loads_what_is_written(
    tmp_path: Path, activation: Any, center: bool, means: bool
) -> None:
    sae_lens = package("sae_lens")
    dictionary = single(activation, "crosscoder", center, means)
    export_dictionary(dictionary, tmp_path, "sae_lens")
    sae, x = sae_lens.SAE.load_from_disk(tmp_path), rows(64, 5, torch.float64, D)
    expected = reconstruct(dictionary, x[:, None])[:, 0]
    torch.testing.assert_close(sae(x).detach().double(), expected, **CLOSE)
    assert sae.cfg.metadata.sae_lens_version == "6.0.0"


@pytest.mark.parametrize("architecture", ["standard", "topk", "jumprelu", "gated"])
def test_what_sae_lens_writes_is_read(tmp_path: Path, architecture: str) -> None:
    sae_lens = package("sae_lens")
    make, settings = {
        "standard": (sae_lens.StandardSAE, {}),
        "topk": (sae_lens.TopKSAE, {"k": K, "rescale_acts_by_decoder_norm": True}),
        "jumprelu": (sae_lens.JumpReLUSAE, {"apply_b_dec_to_input": False}),
        "gated": (sae_lens.GatedSAE, {}),
    }[architecture]
    config = getattr(sae_lens, make.__name__ + "Config")(d_in=D, d_sae=F, **settings)
    sae = random_(make(config))
    sae.save_model(tmp_path / "in")
    imported = import_dictionary(tmp_path / "in")
    x = rows(64, 5, torch.float32, D)
    got = reconstruct(imported.dictionary, x[:, None])[:, 0]
    torch.testing.assert_close(got, sae(x).detach(), **CLOSE)
    export_dictionary(imported.dictionary, tmp_path / "out", "sae_lens", source=imported.source)
    name = "sae_weights.safetensors"
    again = sae_lens.SAE.load_from_disk(tmp_path / "out")
    assert torch.equal(again(x), sae(x))
    assert len((tmp_path / "out" / name).read_bytes()) > 0
    assert json.loads((tmp_path / "out" / "cfg.json").read_text()) == json.loads(
        (tmp_path / "in" / "cfg.json").read_text()
    )


@pytest.mark.parametrize("rescaled", [False, True])
@pytest.mark.parametrize("kind", ["BatchTopK", "MatryoshkaBatchTopK"])
def test_training_checkpoints_of_sae_lens(tmp_path: Path, kind: str, rescaled: bool) -> None:
    sae_lens = package("sae_lens")
    settings = {"matryoshka_widths": [5, F]} if kind.startswith("M") else {}
    config = getattr(sae_lens, f"{kind}TrainingSAEConfig")(
        d_in=D, d_sae=F, k=4.0, rescale_acts_by_decoder_norm=rescaled, **settings
    )
    sae = random_(getattr(sae_lens, f"{kind}TrainingSAE")(config))
    sae.topk_threshold.fill_(1.5)
    sae.save_model(tmp_path / "training")
    sae.save_inference_model(tmp_path / "inference")
    released, x = sae_lens.SAE.load_from_disk(tmp_path / "inference"), rows(64, 5, torch.float32, D)
    for folder in ("training", "inference"):
        imported = import_dictionary(tmp_path / folder)
        got = reconstruct(imported.dictionary, x[:, None])[:, 0]
        torch.testing.assert_close(got, released(x).detach(), **CLOSE)


@pytest.mark.parametrize("transcode", [False, True])
def test_what_sparsify_writes_is_read(
    tmp_path: Path, transcode: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It looks when it is imported, and takes Triton, where that is there, for a GPU.
    monkeypatch.setenv("SPARSIFY_DISABLE_TRITON", "1")
    package("sparsify")
    from sparsify import SparseCoder, SparseCoderConfig

    config = SparseCoderConfig(num_latents=F, k=K, transcode=transcode)
    coder = random_(SparseCoder(D, config))
    coder.save_to_disk(tmp_path)
    x = rows(64, 5, torch.float32, D)
    dictionary = import_dictionary(tmp_path).dictionary
    names = ("in", "out") if transcode else ("model", "model")
    back = dictionary.decode(dictionary.encode({names[1]: x, names[0]: x}))
    torch.testing.assert_close(back[names[1]], coder(x).sae_out.detach(), **CLOSE)


DL = {
    "AutoEncoder": ("dictionary_learning.dictionary", (D, F)),
    "AutoEncoderNew": ("dictionary_learning.dictionary", (D, F)),
    "GatedAutoEncoder": ("dictionary_learning.dictionary", (D, F)),
    "JumpReluAutoEncoder": ("dictionary_learning.dictionary", (D, F)),
    "AutoEncoderTopK": ("dictionary_learning.trainers.top_k", (D, F, K)),
    "BatchTopKSAE": ("dictionary_learning.trainers.batch_top_k", (D, F, K)),
    "MatryoshkaBatchTopKSAE": (
        "dictionary_learning.trainers.matryoshka_batch_top_k",
        (D, F, K, [5, F - 5]),
    ),
}


@pytest.mark.parametrize("kind", list(DL))
def test_dictionary_learning_there_and_back(tmp_path: Path, kind: str) -> None:
    module, arguments = DL[kind]
    ae = random_(getattr(package(module), kind)(*arguments))
    if "BatchTopK" in kind:
        ae.threshold.fill_(0.8)
    (tmp_path / "in").mkdir()
    torch.save(ae.state_dict(), tmp_path / "in" / "ae.pt")
    (tmp_path / "in" / "config.json").write_text(json.dumps({"trainer": {"dict_class": kind}}))
    imported = import_dictionary(tmp_path / "in")
    x = rows(64, 5, torch.float32, D)
    got = reconstruct(imported.dictionary, x[:, None])[:, 0]
    torch.testing.assert_close(got, ae(x).detach(), **CLOSE)
    export_dictionary(
        imported.dictionary, tmp_path / "out", "dictionary_learning", source=imported.source
    )
    again = getattr(package(module), kind)(*arguments)
    again.load_state_dict(torch.load(tmp_path / "out" / "ae.pt", weights_only=True))
    assert torch.equal(again(x), ae(x))


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize(
    "activation", [ReLU(), TopK(K), BatchTopK(), JumpReLU(), Gated()], ids=lambda a: a.kind
)
def test_dictionary_learning_loads_what_is_written(
    tmp_path: Path, activation: Any, center: bool
) -> None:
    utils = package("dictionary_learning.utils")
    dictionary = single(activation, "crosscoder", center, means=True)
    exported = export_dictionary(dictionary, tmp_path, "dictionary_learning", k=K)
    ae, config = utils.load_dictionary(str(tmp_path), device="cpu")
    assert type(ae).__name__ == exported.kind
    if config["trainer"].get("apply_b_dec_to_input"):
        ae.apply_b_dec_to_input = True
    x = rows(64, 5, torch.float64, D)
    expected = reconstruct(dictionary, x[:, None])[:, 0]
    torch.testing.assert_close(ae.double()(x).detach(), expected, rtol=1e-3, atol=1e-3)
