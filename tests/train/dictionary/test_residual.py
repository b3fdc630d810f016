"""Dictionaries of what one model's activations do not tell of the other's."""

import json

import pytest
import torch

from pipeline.errors import ConfigError, DictionaryError
from train.dictionary import residual
from train.dictionary.artifact import load_dictionary, save_dictionary
from train.dictionary.crosscoder import Crosscoder, HookpointShape
from train.dictionary.pairs import partners, refuse_unpaired
from train.dictionary.partition import dedicated, single_group
from train.dictionary.precision import tf32_products
from train.formats.write import export_dictionary
from train.model_card import model_card

from ..names.randomised import close, make, rows_of

TWO = (HookpointShape("a0", "a", 2), HookpointShape("b0", "b", 3))
PAIRED = ["residual dfc", "centered residuals"]


def by_hand() -> Crosscoder:
    """a0 is predicted as twice b0's first coordinate and 1; b0 as a0's sum in its last one."""
    made = Crosscoder(TWO, single_group(("a", "b"), 4), dtype=torch.float64, residual=True)
    made.prediction.weight_0.copy_(torch.tensor([[2.0, 0, 0], [0, 0, 0]]))
    made.prediction.bias_0.copy_(torch.tensor([0.0, 1]))
    made.prediction.weight_1.copy_(torch.tensor([[0.0, 0], [0, 0], [1, 1]]))
    made.scale.copy_(torch.tensor([10.0, 100.0]))
    return made


ROW = {"a0": torch.tensor([[7.0, 5.0]]), "b0": torch.tensor([[3.0, 4.0, 14.0]])}


def test_the_residual_of_a_row_by_hand():
    a, b = by_hand().scaled(ROW)
    assert a.tolist() == [[10.0, 40.0]]  # 7 - 2 * 3 and 5 - 1, tenfold
    assert b.tolist() == [[300.0, 400.0, 200.0]]  # 14 - (7 + 5), and all of it a hundredfold


def test_whole_rows_are_in_the_same_units_and_nothing_is_taken_off():
    a, b = by_hand().scaled(ROW, whole=True)
    assert (a.tolist(), b.tolist()) == ([[70.0, 50.0]], [[300.0, 400.0, 1400.0]])


def test_what_decoding_is_to_give_is_the_residual_in_raw_units():
    found = by_hand().targets(ROW)
    assert {name: row.tolist() for name, row in found.items()} == {
        "a0": [[1.0, 4.0]],
        "b0": [[3.0, 4.0, 2.0]],
    }
    plain = Crosscoder(TWO, single_group(("a", "b"), 4))
    assert plain.targets(ROW) is ROW


@pytest.mark.parametrize("case", PAIRED)
def test_codes_and_reconstructions_are_those_of_a_plain_dictionary_of_the_residuals(case):
    core = make(case)
    plain = Crosscoder(
        core.hookpoints,
        core.partition,
        core.normalization,
        torch.float64,
        activation=core.activation,
        center=core.center,
    )
    state = core.state_dict()
    plain.load_state_dict({n: v for n, v in state.items() if not n.startswith("prediction.")})
    rows = rows_of(core)
    (a, b), p = rows.values(), core.prediction
    residuals = {
        name: x - torch.stack([W @ y_row + c for y_row in y])
        for name, x, y, W, c in (
            (core.hookpoints[0].name, a, b, p.weight_0, p.bias_0),
            (core.hookpoints[1].name, b, a, p.weight_1, p.bias_1),
        )
    }
    found, wanted = core.encode(rows), plain.encode(residuals)
    assert len(found.values) > 0
    close(found.dense(), wanted.dense())
    for name, x_hat in core.decode(found).items():
        close(x_hat, plain.decode(wanted)[name])


@pytest.mark.parametrize("case", PAIRED)
def test_a_saved_one_gives_the_same_codes_bit_for_bit(case, tmp_path):
    core = make(case)
    save_dictionary(tmp_path, core, {})
    loaded = load_dictionary(tmp_path)
    torch.testing.assert_close(loaded.state_dict(), core.state_dict(), rtol=0, atol=0)
    mine, theirs = core.encode(rows_of(core)), loaded.encode(rows_of(core))
    assert torch.equal(mine.pattern.flat, theirs.pattern.flat)
    assert torch.equal(mine.values, theirs.values)


def test_a_dictionary_from_before_there_were_residuals_loads_as_it_is(tmp_path):
    core = make("dfc")
    save_dictionary(tmp_path, core, {})
    file = tmp_path / "config.json"
    said = json.loads(file.read_text())
    assert said.pop("residual") is False
    file.write_text(json.dumps(said))
    assert load_dictionary(tmp_path).prediction is None


def test_a_description_whose_hookpoints_do_not_come_in_pairs_is_damaged(tmp_path):
    save_dictionary(tmp_path, make("relu"), {})
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "residual": True}))
    with pytest.raises(DictionaryError, match="hookpoints of m do not come in pairs"):
        load_dictionary(tmp_path)


def test_hookpoints_that_are_only_read_have_no_residual():
    shapes = (TWO[0], HookpointShape("b0", "b", 3, writes=False))
    with pytest.raises(ValueError, match="both encoded and reconstructed"):
        Crosscoder(shapes, single_group(("a", "b"), 4), residual=True)


def test_the_first_hookpoint_of_one_model_is_the_partner_of_the_first_of_the_other():
    assert partners(["a", "b"]) == [1, 0]
    assert partners(["a", "a", "b", "b"]) == [2, 3, 0, 1]
    assert partners(["a", "b", "b", "a"]) == [1, 0, 3, 2]


@pytest.mark.parametrize(
    ("models", "said"),
    [(["a"], "a 1"), (["a", "b", "c"], "a 1, b 1, c 1"), (["a", "b", "a"], "a 2")],
)
def test_what_does_not_come_in_pairs_is_refused_with_the_remedy(models, said):
    assert partners(models) is None
    with pytest.raises(ConfigError, match=rf"{said}.*train.hookpoints, or use recipe dfc"):
        refuse_unpaired(models)


def test_predictions_are_never_multiplied_in_tf32(monkeypatch):
    precisions, addmm = [], torch.addmm

    def watched(*arguments):
        precisions.append(torch.get_float32_matmul_precision())
        return addmm(*arguments)

    monkeypatch.setattr(residual.torch, "addmm", watched)
    with tf32_products(True):
        by_hand().scaled(ROW)
        assert torch.get_float32_matmul_precision() == "high"
    assert precisions == ["highest", "highest"]


@pytest.mark.parametrize("format", ["dictionary_learning", "sae_lens"])
def test_other_libraries_have_no_place_for_a_prediction(tmp_path, format):
    equal = tuple(HookpointShape(m, m, 3) for m in "ab")
    core = Crosscoder(equal, dedicated(("a", "b"), 4, {"a": 2, "b": 2}), residual=True)
    with pytest.raises(DictionaryError, match=f"export to {format}.*train push"):
        export_dictionary(core, tmp_path / "out", format, k=2)
    assert not (tmp_path / "out").exists()


def test_a_model_card_says_what_is_encoded_and_how_much_was_taken_off(tmp_path):
    save_dictionary(tmp_path, by_hand(), {"predicted": {"a0": 0.875, "b0": 0.5}})
    said = json.loads((tmp_path / "config.json").read_text())
    card = model_card("me/it", said, {})
    assert "taken off: 87.5% of a0, 50.0% of b0). The FVE below is of what is left" in card
    assert "taken off" not in model_card("me/it", {**said, "residual": False}, {})
