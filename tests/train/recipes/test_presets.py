"""What each recipe's name stands for, and that the user's word comes before it."""

from typing import Any, get_args

import pytest
import torch

from pipeline.errors import ConfigError
from train.config import RecipeName, TrainConfig
from train.recipes.presets import NESTED, planned
from train.recipes.recipe import build_trainee
from train.source import StoreRows

from ..conftest import tiny

# As the papers have them: activation, penalty, normalization, centred, unit-norm decoder.
EXPECTED: dict[str, tuple[str, str, str, bool, bool]] = {
    "dfc": ("batch_topk", "none", "crosscoder", False, False),
    "residual_dfc": ("batch_topk", "none", "crosscoder", False, False),
    "batch_topk_crosscoder": ("batch_topk", "none", "crosscoder", False, False),
    "dsf": ("batch_topk", "none", "crosscoder", False, False),
    "crosscoder": ("relu", "l1", "crosscoder", False, False),
    "standard": ("relu", "l1", "none", True, True),
    "gated": ("gated", "l1", "none", True, True),
    "topk": ("topk", "none", "none", True, True),
    "batch_topk": ("batch_topk", "none", "none", True, True),
    "jump_relu": ("jump_relu", "l0", "none", False, True),
    "p_anneal": ("relu", "lp", "none", True, True),
    "gated_anneal": ("gated", "lp", "none", True, True),
    "matryoshka": ("batch_topk", "none", "none", True, True),
}


def plan(recipe: object, **keys: Any):
    (found,) = planned(TrainConfig.model_validate({"recipes": [recipe], **keys}))
    return found


def test_every_recipe_is_expected():
    assert set(EXPECTED) == set(get_args(RecipeName))


@pytest.mark.parametrize("recipe", EXPECTED)
def test_a_recipe_is_what_its_paper_says(recipe):
    one = plan(recipe)
    config = one.config
    assert EXPECTED[recipe] == (
        config.activation,
        config.sparsity,
        config.code_normalization,
        config.center,
        config.unit_norm_decoder,
    )
    assert one.partition == ("dedicated" if recipe.endswith("dfc") else "shared")
    assert config.residual is (True if recipe == "residual_dfc" else None)
    assert config.auxk_weight == (1 / 32 if "topk" in config.activation else 0)
    assert config.matryoshka == (NESTED if recipe == "matryoshka" else [1.0])
    assert config.designated == (0.1 if recipe == "dsf" else 0)


def test_unit_norm_decoders_start_at_norm_1_whatever_the_recipe():
    assert plan("crosscoder", unit_norm_decoder=True).config.decoder_init_norm == 1.0
    assert plan("crosscoder").config.decoder_init_norm == 0.1


@pytest.mark.parametrize("recipe", EXPECTED)
def test_what_the_user_says_comes_first_and_of_one_dictionary_before_all(recipe):
    given = {"decoder_init_norm": 0.3, "auxk_weight": 0.5, "center": True, "k": 7}
    config = plan({"recipe": recipe, "k": 9}, **given).config
    assert (config.decoder_init_norm, config.auxk_weight, config.center, config.k) == (
        *(0.3, 0.5, True),
        9,
    )


def test_a_sweep_multiplies_every_dictionary():
    config = TrainConfig.model_validate(
        {"recipes": ["dfc", {"recipe": "topk", "name": "t"}], "sweep": {"k": [2, 4], "lr": [0.1]}}
    )
    found = {one.name: (one.recipe, one.config.k, one.config.lr) for one in planned(config)}
    assert found == {
        "dfc-k=2-lr=0.1": ("dfc", 2, 0.1),
        "dfc-k=4-lr=0.1": ("dfc", 4, 0.1),
        "t-k=2-lr=0.1": ("topk", 2, 0.1),
        "t-k=4-lr=0.1": ("topk", 4, 0.1),
    }


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"recipe": "topk", "steps": 3}, "'steps' is not a key of one dictionary"),
        ({"recipe": "topk", "code_normalization": "decoupled"}, "needs activation batch_topk"),
        ({"recipe": "standard", "sparsity": "l0"}, "needs activation jump_relu, not relu"),
        ({"recipe": "dfc", "designated": 0.1}, "use recipe dsf"),
        ({"recipe": "residual_dfc", "designated": 0.1}, "residual_dfc has a partition of its own"),
        ({"recipe": "dfc", "residual": True, "encoder_hookpoints": ["a"]}, "leave them null"),
        ({"recipe": "residual_dfc", "decoder_hookpoints": ["a"]}, "train.residual: every hookp"),
        ({"recipe": "dfc", "name": "../x"}, "cannot name a folder"),
    ],
)
def test_contradictions_are_refused(recipe, message):
    with pytest.raises(ConfigError, match=message):
        plan(recipe)


def test_designated_features_of_hookpoints_of_two_widths_are_refused_with_what_to_do(store):
    config = tiny(recipes=["dsf"])
    source = StoreRows(store, config)
    wanted = "train.designated: a is 12 wide and b 20.*use recipe dfc$"
    with pytest.raises(ConfigError, match=wanted):
        build_trainee(planned(config)[0], source, source.first_batch(), torch.device("cpu"))


@pytest.mark.parametrize("recipe", EXPECTED)
def test_training_lowers_the_reconstruction_loss(store, recipe):
    config = tiny(recipes=[recipe], steps=60, hookpoints=["a"] if recipe == "dsf" else None)
    source = StoreRows(store, config)
    trainee = build_trainee(planned(config)[0], source, source.first_batch(), torch.device("cpu"))
    losses = []
    for step, batch in zip(range(60), source, strict=False):
        metrics = trainee.step(batch.activations, step)
        losses.append(float(metrics.terms["reconstruction"]))
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])
