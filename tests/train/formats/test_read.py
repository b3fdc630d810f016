"""Every foreign format read: reconstructions equal those of its own formulas."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.errors import DictionaryError
from train.formats.read import Imported, import_dictionary

from .foreign import (
    DEDICATED,
    IDS,
    LAYERED,
    SINGLE,
    D,
    F,
    K,
    L,
    Random,
    largest,
    layered_forward,
    layered_state,
    normaliser,
    rows,
    single_forward,
    single_state,
)

CLOSE = {torch.float32: 2e-5, torch.float64: 1e-11}


def save(folder: Path, state: dict[str, Any], config: dict[str, Any] | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    torch.save(state, folder / "ae.pt")
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return folder


def trainer(kind: str, **more: Any) -> dict[str, Any]:
    return {"trainer": {"dict_class": kind, **more}}


def reconstruct(imported: Imported, x: Tensor) -> Tensor:
    """(B, L, D) of x (B, L, D), hookpoint by hookpoint."""
    dictionary = imported.dictionary
    names = [hookpoint.name for hookpoint in dictionary.hookpoints]
    given = {name: x[:, n] for n, name in enumerate(names)}
    back = dictionary.decode(dictionary.encode(given))
    return torch.stack([back[name] for name in names], dim=1)


def check(got: Tensor, expected: Tensor) -> None:
    bound = CLOSE[expected.dtype]
    assert expected.abs().max() > 1
    torch.testing.assert_close(got, expected, rtol=bound, atol=20 * bound)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", SINGLE)
def test_single_model_kinds(tmp_path: Path, kind: str, dtype: torch.dtype) -> None:
    state, x = single_state(kind, dtype=dtype), rows(64, 5, dtype, D)
    imported = import_dictionary(save(tmp_path, state, trainer(kind)))
    assert imported.source["kind"] == kind
    assert imported.dictionary.b_enc.dtype == dtype
    got = reconstruct(imported, x[:, None])[:, 0]
    check(got, single_forward(kind, state, x))


def test_jump_relu_that_subtracts_its_bias(tmp_path: Path) -> None:
    kind = "JumpReluAutoEncoder"
    state, x = single_state(kind), rows(64, 5, torch.float32, D)
    config = trainer(kind, apply_b_dec_to_input=True)
    got = reconstruct(import_dictionary(save(tmp_path, state, config)), x[:, None])[:, 0]
    check(got, single_forward(kind, state, x, apply_b_dec=True))
    assert not torch.allclose(got, single_forward(kind, state, x), atol=0.1)


def test_gated_codes_differ_by_the_decoder_norm(tmp_path: Path) -> None:
    state, x = single_state("GatedAutoEncoder"), rows(32, 5, torch.float32, D)
    imported = import_dictionary(save(tmp_path, state))
    codes = imported.dictionary.encode({"model": x}).dense()
    x_e = (x - state["decoder_bias"]) @ state["encoder.weight"].T
    gate = x_e + state["gate_bias"] > 0
    plain = gate * torch.relu(state["r_mag"].exp() * x_e + state["mag_bias"])
    torch.testing.assert_close(codes, plain)
    assert any("|W_dec[i]|" in note for note in imported.notes)


def test_negative_thresholds_keep_every_positive_code(tmp_path: Path) -> None:
    x = rows(64, 5, torch.float32, D)
    for number, kind in enumerate(("BatchTopKSAE", "JumpReluAutoEncoder")):
        state = single_state(kind)
        state["threshold"] = state["threshold"] - 1.0
        imported = import_dictionary(save(tmp_path / str(number), state, trainer(kind)))
        check(reconstruct(imported, x[:, None])[:, 0], single_forward(kind, state, x))
        assert any("below 0" in note for note in imported.notes)


@pytest.mark.parametrize("normalization", list(IDS))
@pytest.mark.parametrize("kind", [*LAYERED, *DEDICATED])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_crosscoders(tmp_path: Path, kind: str, normalization: str, dtype: torch.dtype) -> None:
    state = layered_state(kind, dtype=dtype, normalization=normalization)
    x = rows(64, 5, dtype, L, D)
    imported = import_dictionary(save(tmp_path, state))
    assert imported.source["kind"] == kind
    assert imported.dictionary.normalization == normalization
    check(reconstruct(imported, x), layered_forward(state, x, normalization))


def test_three_layers_and_their_names(tmp_path: Path) -> None:
    state, x = layered_state("CrossCoder", layers=3), rows(16, 5, torch.float32, 3, D)
    imported = import_dictionary(
        save(tmp_path, state), models=("m", "m", "n"), hookpoints=("m.1", "m.2", "n.1")
    )
    assert [h.name for h in imported.dictionary.hookpoints] == ["m.1", "m.2", "n.1"]
    assert [h.model for h in imported.dictionary.hookpoints] == ["m", "m", "n"]
    check(reconstruct(imported, x), layered_forward(state, x, "crosscoder"))


def test_missing_normalization_is_crosscoder_and_said(tmp_path: Path) -> None:
    state = layered_state("BatchTopKCrossCoder", normalization=None)
    x = rows(64, 5, torch.float32, L, D)
    imported = import_dictionary(save(tmp_path, state))
    check(reconstruct(imported, x), layered_forward(state, x, "crosscoder"))
    assert any("taken as CROSSCODER" in note for note in imported.notes)


@pytest.mark.parametrize("without_scale", [False, True])
def test_normaliser_of_a_crosscoder(tmp_path: Path, without_scale: bool) -> None:
    figures = normaliser(L)
    mean, s = figures["activation_mean"], figures["activation_global_scale"][:, None]
    state = layered_state("BatchTopKCrossCoder") | figures
    if without_scale:
        del state["activation_global_scale"]
    x = rows(64, 5, torch.float32, L, D)
    expected = layered_forward(state, (x - mean) * s, "crosscoder") / (s + 1e-8) + mean
    check(reconstruct(import_dictionary(save(tmp_path, state)), x), expected)


def test_normaliser_of_an_sae_and_none_at_all(tmp_path: Path) -> None:
    kind, figures = "BatchTopKSAE", normaliser(None)
    mean, s = figures["activation_mean"], figures["activation_global_scale"]
    state, x = single_state(kind) | figures, rows(64, 5, torch.float32, D)
    expected = single_forward(kind, state, (x - mean) * s) / (s + 1e-8) + mean
    got = reconstruct(import_dictionary(save(tmp_path / "one", state, trainer(kind))), x[:, None])
    check(got[:, 0], expected)
    state["activation_mean"] = state["activation_std"] = torch.full((D,), torch.nan)
    state["activation_global_scale"] = torch.ones(())
    got = reconstruct(import_dictionary(save(tmp_path / "two", state, trainer(kind))), x[:, None])
    check(got[:, 0], single_forward(kind, state, x))


def test_a_scale_that_its_figures_do_not_give_is_said(tmp_path: Path) -> None:
    figures = normaliser(L)
    right = save(tmp_path / "right", layered_state("CrossCoder") | figures)
    assert import_dictionary(right).notes == []
    figures["activation_global_scale"] = figures["activation_global_scale"] * 1.01
    imported = import_dictionary(save(tmp_path / "other", layered_state("CrossCoder") | figures))
    assert torch.equal(imported.dictionary.scale, figures["activation_global_scale"])
    assert any("the file's own scale is used" in note for note in imported.notes)


def test_a_small_scale_is_said(tmp_path: Path) -> None:
    figures = normaliser(L) | {"activation_global_scale": torch.tensor(0.01)}
    imported = import_dictionary(save(tmp_path, layered_state("CrossCoder") | figures))
    assert sum("differ by 1e-06 of their size" in note for note in imported.notes) == 2


def test_kissane(tmp_path: Path) -> None:
    r = Random(3)
    state = {"W_enc": r(L, D, F), "W_dec": r(F, L, D), "b_enc": r(F), "b_dec": r(L, D)}
    folder = tmp_path / "blocks.14.hook_resid_pre"
    folder.mkdir()
    torch.save(state, folder / "cc_weights.pt")
    (folder / "cfg.json").write_text(json.dumps({"dict_size": F}))
    x = rows(64, 5, torch.float32, L, D)
    f = torch.relu(torch.einsum("bld,ldf->bf", x, state["W_enc"]) + state["b_enc"])
    expected = torch.einsum("bf,fld->bld", f, state["W_dec"]) + state["b_dec"]
    check(reconstruct(import_dictionary(folder), x), expected)


def masked_state() -> dict[str, Tensor]:
    """Features of the two models and shared ones, mixed up."""
    r, owner = Random(4), torch.arange(F) % 5  # 0: A alone, 1 and 2: B alone, else shared
    mask = torch.stack([~((owner == 1) | (owner == 2)), owner != 0]).float()
    return {
        "W_enc": r(L, D, F) * mask[:, None],
        "W_dec": r(F, L, D) * mask.T[:, :, None],
        "b_enc": r(F),
        "b_dec": r(L, D),
        "enc_mask": mask,
        "dec_mask": mask.T.contiguous(),
    }


def test_masked_dfc(tmp_path: Path) -> None:
    state = masked_state()
    config = {"activation_dim": D, "dict_size": F, "k": K, "n_a": 4, "n_b": 8}
    imported = import_dictionary(save(tmp_path, state, config))
    x = rows(64, 5, torch.float32, L, D)
    f = torch.relu(torch.einsum("bld,ldf->bf", x, state["W_enc"]) + state["b_enc"])
    f = f * largest(f, K)
    expected = torch.einsum("bf,fld->bld", f, state["W_dec"]) + state["b_dec"]
    check(reconstruct(imported, x), expected)
    sizes = {group.name: group.size for group in imported.dictionary.partition.groups}
    assert sizes == {"a": 4, "shared": 8, "b": 8}


def test_masked_dfc_that_is_not_what_it_says(tmp_path: Path) -> None:
    state, config = masked_state(), {"k": K, "n_a": 5, "n_b": 8}
    with pytest.raises(DictionaryError, match="n_a is 5, the masks give 4"):
        import_dictionary(save(tmp_path / "count", state, config))
    state["W_dec"][0, 1, 2] = 0.25
    with pytest.raises(DictionaryError, match=r"W_dec of the second model has 1 .* 0\.25"):
        import_dictionary(save(tmp_path / "leak", state, {"k": K}))
    state = masked_state()
    state["dec_mask"][3, 0] = 0
    with pytest.raises(DictionaryError, match="1 features are read from other models"):
        import_dictionary(save(tmp_path / "masks", state, {"k": K}))
