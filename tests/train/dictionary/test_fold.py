"""Folding scale and mean into the weights: same function, once only, and back."""

import pytest
import torch

from pipeline.errors import DictionaryError
from train.dictionary.artifact import load_dictionary, save_dictionary
from train.dictionary.fold import fold, is_folded, unfold

from ..names.randomised import CASES, make, rows_of

EACH = pytest.mark.parametrize("case", CASES)
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


@EACH
@DTYPES
def test_a_folded_dictionary_does_the_same_on_raw_rows(case, dtype):
    core = make(case, dtype)
    folded, _ = fold(core)
    rows = rows_of(core, dtype=dtype)
    before, after = core.encode(rows), folded.encode(rows)
    assert 0 < len(before.values) < before.pattern.batch * before.pattern.features
    assert torch.equal(after.pattern.flat, before.pattern.flat)
    if before.on_HN is not None:
        assert torch.equal(after.on_HN, before.on_HN)
    tolerance = 64 * torch.finfo(dtype).eps
    torch.testing.assert_close(after.values, before.values, rtol=tolerance, atol=tolerance)
    wanted = core.decode(before)
    for name, x_hat in folded.decode(after).items():
        torch.testing.assert_close(x_hat, wanted[name], rtol=tolerance, atol=tolerance)


@EACH
def test_nothing_but_weights_is_left_to_do_and_norms_stay_in_scaled_units(case):
    core = make(case)
    folded, _ = fold(core)
    assert is_folded(folded)
    assert not is_folded(core)
    assert torch.equal(folded.scale, torch.ones_like(core.scale))
    for n in range(len(core.hookpoints) * core.means):
        assert not folded.get_buffer(f"mean_{n}").any()
    torch.testing.assert_close(folded.decoder_norms(), core.decoder_norms())
    torch.testing.assert_close(folded.code_scale(), core.code_scale())
    if case == "relu":  # by hand: no scale, no mean
        x = rows_of(core)["x"]
        pre = (x - folded.b_dec["0"]) @ folded.W_enc["0"].T + folded.b_enc
        torch.testing.assert_close(core.encode({"x": x}).dense(), pre.relu().detach())


@EACH
@DTYPES
@pytest.mark.parametrize("seed", range(4))
def test_unfolding_gives_every_bit_back(case, dtype, seed):
    core = make(case, dtype, seed)
    with torch.no_grad():
        core.W_enc["0"][0, 0], core.W_enc["0"][1, 0] = 0.0, -0.0
        core.W_enc["0"][2, 0] = torch.finfo(dtype).smallest_normal / 4  # loses bits by scaling
        core.W_enc["0"][3, 0] = torch.finfo(dtype).max  # is infinite or loses nothing
    before = {name: value.clone() for name, value in core.state_dict().items()}
    folded, unfolding = fold(core)
    assert any((value != before[name]).any() for name, value in folded.state_dict().items())
    after = unfold(folded, unfolding).state_dict()
    bits = torch.int32 if dtype == torch.float32 else torch.int64
    assert list(after) == list(before)
    for name, value in before.items():
        assert torch.equal(after[name].view(bits), value.view(bits)), name


@EACH
@DTYPES
def test_what_unfolding_needs_is_a_byte_per_weight(case, dtype):
    core = make(case, dtype)
    _, unfolding = fold(core)
    assert {steps.dtype for steps in unfolding.steps.values()} == {torch.int8}
    assert {*unfolding.steps, *unfolding.kept} == set(core.state_dict())
    assert max(int(steps.abs().max()) for steps in unfolding.steps.values()) <= 4


@EACH
@DTYPES
@pytest.mark.parametrize("seed", range(4))
def test_without_what_it_needs_unfolding_is_within_the_stated_bound(case, dtype, seed):
    core = make(case, dtype, seed)
    plain = unfold(fold(core)[0])
    assert torch.equal(plain.scale, core.scale)
    assert not is_folded(plain)
    eps = torch.finfo(dtype).eps
    for name, value in core.state_dict().items():
        moved = core.means and name.startswith(("mean_", "b_enc", "b_dec", "mag_bias"))
        if not moved:
            assert ((plain.state_dict()[name] - value).abs() <= 2 * eps * value.abs()).all(), name
    rows = rows_of(core, dtype=dtype)
    assert torch.equal(plain.encode(rows).pattern.flat, core.encode(rows).pattern.flat)


def test_folding_twice_and_unfolding_what_is_not_folded_are_refused():
    core = make("dfc")
    folded, _ = fold(core)
    with pytest.raises(DictionaryError, match="folded into the weights already; unfold it first"):
        fold(folded)
    with pytest.raises(DictionaryError, match="there is nothing to unfold"):
        unfold(core)


def test_a_scale_that_cannot_be_divided_by_is_refused():
    core = make("dfc")
    core.scale[1] = 0
    with pytest.raises(DictionaryError, match=r"scale .*0\.0\]: cannot be folded"):
        fold(core)


def test_folding_does_not_touch_the_original():
    core = make("gated dfc")
    before = {name: value.clone() for name, value in core.state_dict().items()}
    folded, unfolding = fold(core)
    unfold(folded, unfolding)
    assert all(torch.equal(core.state_dict()[name], value) for name, value in before.items())


def test_a_folded_dictionary_is_saved_as_such(tmp_path):
    core = make("dfc")
    folded, unfolding = fold(core)
    save_dictionary(tmp_path, folded, {})
    loaded = load_dictionary(tmp_path)
    assert is_folded(loaded)
    state = unfold(loaded, unfolding).state_dict()
    assert all(torch.equal(state[name], value) for name, value in core.state_dict().items())
