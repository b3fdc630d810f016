"""Logit lenses of a dictionary, against the models' own weights multiplied out."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from analyze.features import lens as module
from analyze.features.lens import open_lenses, tokens_table
from train.dictionary.artifact import load_dictionary


@pytest.fixture(scope="module")
def opened(residual):
    config, store = residual
    dictionary = load_dictionary(config.dictionary_path)
    return dictionary, open_lenses(store, dictionary, config.models)


def scores(model, d_D):
    """Logits of one direction in float64, less their mean, by formula."""
    d_D = d_D.double() / d_D.double().square().mean().sqrt()
    if hasattr(model, "gpt_neox"):
        norm = model.gpt_neox.final_layer_norm
        d_D = (d_D - d_D.mean()) / d_D.std(correction=0)
    else:
        norm = model.model.norm
    logits_V = model.lm_head.weight.double() @ (norm.weight.double() * d_D)
    return logits_V - logits_V.mean()


def test_tokens_are_those_that_the_final_norm_and_head_give_the_decoder_direction(
    opened, model_pair
):
    dictionary, lenses = opened
    assert lenses.notes == ()
    features = np.array([17, 2, 8, 19])
    table = tokens_table(dictionary, lenses, features, count=6)
    for number, (name, path) in enumerate(model_pair.items()):
        model = AutoModelForCausalLM.from_pretrained(path)
        tokenizer = AutoTokenizer.from_pretrained(path)
        for feature in features.tolist():
            own = table.filter(feature=feature, model=name)
            local = int(dictionary.visibility(number).local_F[feature])
            if local < 0:
                assert own.is_empty()
                continue
            logits_V = scores(model, dictionary.W_dec[str(number)][local].detach())
            for promoted, sign in ((True, 1), (False, -1)):
                lines = own.filter(promoted=promoted).sort("rank")
                wanted = (sign * logits_V).topk(6)
                np.testing.assert_allclose(
                    lines["logit"], (sign * wanted.values).detach(), rtol=1e-4, atol=1e-4
                )
                assert lines["rank"].to_list() == [1, 2, 3, 4, 5, 6]
                for token, found in zip(wanted.indices.tolist(), lines["token"], strict=True):
                    spelt = tokenizer.convert_ids_to_tokens(token)
                    assert found in (spelt, spelt.replace("▁", " "), tokenizer.decode([token]))
    assert table["hookpoint"].unique().sort().to_list() == [h.name for h in dictionary.hookpoints]


def test_features_are_looked_at_in_blocks_like_all_at_once(opened, monkeypatch):
    dictionary, lenses = opened
    features = np.arange(20)
    whole = tokens_table(dictionary, lenses, features)
    monkeypatch.setattr(module, "FEATURES_AT_ONCE", 3)
    parts = tokens_table(dictionary, lenses, features)
    assert parts.drop("logit").equals(whole.drop("logit"))
    assert whole["feature"].n_unique() == 20


def test_a_feature_without_a_norm_has_no_direction_to_look_at(opened):
    dictionary, lenses = opened
    kept = dictionary.W_dec["1"][0].detach().clone()
    with torch.no_grad():
        dictionary.W_dec["1"][0] = 0
    table = tokens_table(dictionary, lenses, np.array([5]))
    with torch.no_grad():
        dictionary.W_dec["1"][0] = kept
    assert table["model"].unique().to_list() == ["a"]


def test_a_hookpoint_inside_a_layer_has_no_lens_and_the_note_names_it(inside):
    config, store = inside
    dictionary = load_dictionary(config.dictionary_path)
    lenses = open_lenses(store, dictionary, config.models)
    assert [lens.model for lens in lenses.found] == ["b"]
    assert lenses.notes == (
        "models.a: no logit lens: none of its reconstructed hookpoints is on the residual stream "
        "(a.model.layers.1.mlp.out)",
    )
    assert set(tokens_table(dictionary, lenses, np.arange(20))["model"]) == {"b"}


def test_models_that_were_not_harvested_are_not_looked_through(residual, tmp_path, model_pair):
    config, store = residual
    other = AutoModelForCausalLM.from_pretrained(model_pair["a"])
    with torch.no_grad():
        for weights in other.model.layers[0].parameters():
            weights.normal_()
    other.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(model_pair["a"]).save_pretrained(tmp_path)
    specs = {**config.models, "a": config.models["a"].model_copy(update={"path": str(tmp_path)})}
    lenses = open_lenses(store, load_dictionary(config.dictionary_path), specs)
    assert lenses.found == ()
    (note,) = lenses.notes
    assert note.startswith("no logit lens: models.a.path")
    assert "are not those of" in note


def test_a_model_that_is_not_there_is_a_note_not_an_error(residual):
    config, store = residual
    gone = config.models["b"].model_copy(update={"path": "nowhere/at/all"})
    specs = {**config.models, "b": gone}
    lenses = open_lenses(store, load_dictionary(config.dictionary_path), specs)
    assert lenses.found == ()
    assert "models.b" in lenses.notes[0]
