"""Imported and exported again, tensors are the original's to the bit."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from train.dictionary.artifact import load_dictionary, read_description, save_dictionary
from train.formats.dl_crosscoder import ours_of_theirs
from train.formats.dl_crosscoder_write import share_of
from train.formats.files import find
from train.formats.kept import pack, unpack
from train.formats.read import import_dictionary
from train.formats.write import export_dictionary

from .foreign import (
    DEDICATED,
    IDS,
    LAYERED,
    PARTITION,
    SINGLE,
    A,
    B,
    D,
    F,
    L,
    layered_state,
    normaliser,
    same_bits,
    single_state,
)

NOTHING = {
    "target_rms": torch.ones(()),
    "activation_mean": torch.full((D,), torch.nan),
    "activation_std": torch.full((D,), torch.nan),
    "activation_global_scale": torch.ones(()),
}


def there_and_back(
    tmp_path: Path, state: dict[str, Any], kind: str, config: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Foreign file -> a dictionary on disk -> foreign file, as `torch.load` gives it."""
    (tmp_path / "in").mkdir()
    torch.save(state, tmp_path / "in" / "ae.pt")
    config = config or {"trainer": {"dict_class": kind}}
    (tmp_path / "in" / "config.json").write_text(json.dumps(config))
    imported = import_dictionary(tmp_path / "in")
    save_dictionary(tmp_path / "own", imported.dictionary, {"source": imported.source})
    source = read_description(tmp_path / "own")["source"]
    dictionary = load_dictionary(tmp_path / "own")
    exported = export_dictionary(dictionary, tmp_path / "out", "dictionary_learning", source=source)
    assert exported.kind == kind
    back: dict[str, Any] = torch.load(tmp_path / "out" / exported.files[0], weights_only=True)
    return back


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", SINGLE)
def test_single_model_kinds(tmp_path: Path, kind: str, dtype: torch.dtype) -> None:
    state = single_state(kind, dtype=dtype)
    assert same_bits(there_and_back(tmp_path, state, kind), state)


@pytest.mark.parametrize("normalization", [*IDS, None])
@pytest.mark.parametrize("kind", [*LAYERED, *DEDICATED])
def test_crosscoders(tmp_path: Path, kind: str, normalization: str | None) -> None:
    state = layered_state(kind, normalization=normalization)
    assert same_bits(there_and_back(tmp_path, state, kind), state)


@pytest.mark.parametrize("kind", ["BatchTopKSAE", "CrossCoder", *DEDICATED])
def test_normalisers(tmp_path: Path, kind: str) -> None:
    single = kind == "BatchTopKSAE"
    for name, figures in (("some", normaliser(None if single else L)), ("none", NOTHING)):
        if name == "none" and not single:
            figures = {k: v.expand(L, D).clone() if v.dim() else v for k, v in figures.items()}
        state = (single_state(kind) if single else layered_state(kind)) | figures
        (tmp_path / name).mkdir()
        assert same_bits(there_and_back(tmp_path / name, state, kind), state)


def test_the_oldest_normaliser_has_one_scale(tmp_path: Path) -> None:
    figures = normaliser(L) | {"activation_global_scale": torch.tensor(0.7)}
    state = layered_state("CrossCoder", normalization=None) | figures
    assert same_bits(there_and_back(tmp_path, state, "CrossCoder"), state)


@pytest.mark.parametrize("kind", ["AutoEncoderTopK", "BatchTopKSAE", "JumpReluAutoEncoder"])
def test_thresholds_below_zero_and_older_keys(tmp_path: Path, kind: str) -> None:
    state = single_state(kind)
    state["threshold"] = state["threshold"] - 1.5
    (tmp_path / "below").mkdir()
    assert same_bits(there_and_back(tmp_path / "below", state, kind), state)
    if kind == "AutoEncoderTopK":
        del state["threshold"], state["k"]
        (tmp_path / "older").mkdir()
        config = {"trainer": {"dict_class": kind, "k": 4}}
        assert same_bits(there_and_back(tmp_path / "older", state, kind, config), state)


def test_jump_relu_keeps_what_it_does_with_its_bias(tmp_path: Path) -> None:
    kind = "JumpReluAutoEncoder"
    config = {"trainer": {"dict_class": kind, "apply_b_dec_to_input": True}}
    state = single_state(kind)
    assert same_bits(there_and_back(tmp_path, state, kind, config), state)
    assert find(tmp_path / "out").setting("apply_b_dec_to_input") is True


def test_a_dfc_on_the_hub_keeps_partition_and_normalization(tmp_path: Path) -> None:
    state = layered_state(DEDICATED[1], normalization="decoupled")
    torch.save(state, tmp_path / "model_final.pt")
    imported = import_dictionary(tmp_path, models=("x", "y"))
    hub = tmp_path / "hub"
    exported = export_dictionary(
        imported.dictionary,
        hub,
        "dictionary_learning",
        source=imported.source,
        as_safetensors=True,
    )
    assert exported.files == ["model.safetensors", "config.json"]
    again = import_dictionary(hub, models=("x", "y"))
    assert again.source["kind"] == DEDICATED[1]
    assert again.dictionary.normalization == "decoupled"
    assert again.dictionary.partition == imported.dictionary.partition
    assert [(g.name, g.size) for g in again.dictionary.partition.groups] == [
        ("x", A),
        ("shared", F - A - B),
        ("y", B),
    ]
    assert same_bits(again.dictionary.state_dict(), imported.dictionary.state_dict())
    tensors = {key: value for key, value in state.items() if key != "_partition_config"}
    assert same_bits(find(hub).tensors, tensors)
    assert find(hub).other == {"_partition_config": PARTITION}


def test_a_changed_normaliser_is_written_anew(tmp_path: Path) -> None:
    state = layered_state("CrossCoder") | normaliser(L)
    torch.save(state, tmp_path / "model_final.pt")
    imported = import_dictionary(tmp_path)
    imported.dictionary.scale.mul_(2)
    export_dictionary(
        imported.dictionary, tmp_path / "out", "dictionary_learning", source=imported.source
    )
    again = import_dictionary(tmp_path / "out")
    torch.testing.assert_close(again.dictionary.scale, imported.dictionary.scale)
    back = find(tmp_path / "out").tensors
    total = back["activation_std"].square().sum(dim=1)
    derived = back["target_rms"] / (total + 1e-8).sqrt()
    torch.testing.assert_close(derived, imported.dictionary.scale)


@given(st.integers(1, 200_000), st.floats(0, 1))
def test_shares_give_their_sizes_back(features: int, part: float) -> None:
    count = int(features * part)
    assert int(features * share_of(count, features)) == count


@given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9))
def test_order_of_features(a: int, b: int, shared: int) -> None:
    theirs = ["A"] * a + ["B"] * b + ["S"] * shared
    order = ours_of_theirs(a, b, len(theirs))
    assert [theirs[n] for n in order] == ["A"] * a + ["S"] * shared + ["B"] * b
    assert order[order.argsort()].tolist() == list(range(len(theirs)))


def test_kept_tensors_keep_their_bits() -> None:
    tensors = {
        "nan": torch.tensor([torch.nan, -torch.inf, -0.0, 1e-45]),
        "half": torch.tensor([[1.5, -2.25]], dtype=torch.bfloat16),
        "count": torch.tensor(7, dtype=torch.int32),
        "empty": torch.zeros(0, 3),
    }
    back = unpack(json.loads(json.dumps(pack(tensors))))
    assert same_bits(back, tensors)
    assert torch.equal(back["nan"].view(torch.int32), tensors["nan"].view(torch.int32))
