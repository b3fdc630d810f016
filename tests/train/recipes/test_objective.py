"""Loss and gradient of every recipe against the plain reference, in float64."""

from typing import get_args

import pytest

from train.config import RecipeName, TrainConfig
from train.dictionary import activated
from train.recipes.objective import Scheduled
from train.recipes.presets import planned
from train.recipes.tied import tie_gradients

from .trainees import (
    CASES,
    DEAD,
    WEIGHT,
    K,
    assert_same,
    batch_of,
    build,
    gradients,
    kill,
    reference_of,
)

TWO_PATHS = ("relu", "gated", "jump_relu")


def paths() -> list[tuple[str, float]]:
    """Both forms of codes where there are two: DENSE_SHARE 1 is sparse, 0 dense."""
    found = []
    for name, (_, keys) in CASES.items():
        (plan,) = planned(TrainConfig(recipes=[keys]))
        two = plan.config.activation in TWO_PATHS
        found += [(name, 1.0), (name, 0.0)] if two else [(name, 1.0)]
    return found


def test_every_recipe_is_among_the_cases():
    assert {keys["recipe"] for _, keys in CASES.values()} == set(get_args(RecipeName))


@pytest.mark.parametrize(("name", "share"), paths())
def test_loss_and_gradient_are_those_of_the_formulas(monkeypatch, name, share):
    monkeypatch.setattr(activated, "DENSE_SHARE", share)
    trainee = build(name)
    kill(trainee, DEAD)
    reference = reference_of(trainee, DEAD)
    raw, x = batch_of(trainee)
    p = 0.5 if trainee.config.sparsity == "lp" else 1.0
    result = trainee.loss(trainee.dictionary.scaled(raw), Scheduled(K, WEIGHT, p))
    result.total.backward()
    tied = trainee.dictionary.tied_rows()
    if tied is not None:
        tie_gradients(list(trainee.dictionary.W_dec.values()), tied)
    terms = reference.terms(x, K, p)
    assert_same(result.terms, terms)
    total = reference.total(terms, WEIGHT)
    assert_same({"total": result.total}, {"total": total})
    wanted = reference.gradients(total)
    assert all(grad.abs().max() > 1e-4 for grad in wanted.values())
    assert_same(gradients(trainee), wanted)
