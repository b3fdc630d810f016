"""FVE and L0 in inference mode."""

import copy

import numpy as np
import pytest
import torch

from pipeline.errors import DictionaryError
from store.loader import Batch
from train.evaluate import VarianceExplained, evaluate

from .pairs import make_config, make_trainee, random_batch


def batches(trainee, count: int) -> list[Batch]:
    return [Batch(random_batch(trainee, n), np.arange(15) + 15 * n) for n in range(count)]


def explained(x: torch.Tensor, x_hat: torch.Tensor, pieces: int = 3) -> float | None:
    accumulator = VarianceExplained()
    for x_BD, x_hat_BD in zip(x.chunk(pieces), x_hat.chunk(pieces), strict=True):
        accumulator.update(x_BD, x_hat_BD)
    return accumulator.fve


X = torch.randn(90, 5, generator=torch.Generator().manual_seed(0)) + 3


def test_a_perfect_reconstruction_explains_everything():
    assert explained(X, X) == 1.0


def test_the_mean_explains_nothing():
    assert explained(X, X.mean(0).expand_as(X)) == pytest.approx(0.0, abs=1e-6)


def test_zero_explains_less_than_nothing_where_the_mean_is_not_zero():
    assert explained(X, torch.zeros_like(X)) < -1


def test_fve_does_not_depend_on_how_rows_are_batched():
    x_hat = X + 0.3 * X.sin()
    assert explained(X, x_hat, 1) == pytest.approx(explained(X, x_hat, 9), rel=1e-12)


def test_fve_of_bfloat16_rows_is_that_of_the_same_rows_in_float64():
    x = X.bfloat16()
    assert explained(x, X) == pytest.approx(explained(x.double(), X.double()), rel=1e-12)


def test_there_is_no_fve_of_no_rows():
    assert VarianceExplained().fve is None
    assert explained(X[:0], X[:0], 1) is None


@pytest.mark.parametrize("x", [X[:1], torch.full((90, 5), 0.1)], ids=["one row", "constant rows"])
def test_there_is_no_fve_of_rows_that_do_not_vary(x):
    assert explained(x, x + 1, 1) is None


@pytest.mark.parametrize("which", ["activations", "reconstructions"])
def test_values_that_are_not_finite_are_blamed_on_their_hookpoint(which):
    accumulator = VarianceExplained("layer 3")
    spoilt = X.clone()
    spoilt[4, 2] = torch.nan
    accumulator.update(*((spoilt, X) if which == "activations" else (X, spoilt)))
    with pytest.raises(DictionaryError, match=f"layer 3: {which}.* not finite.*`store verify`"):
        _ = accumulator.fve


def test_an_evaluation_of_no_rows_has_no_values():
    result = evaluate(make_trainee("dfc", make_config()).dictionary, [])
    assert (set(result.fve.values()), result.l0, result.rows) == ({None}, None, 0)


def test_evaluation_is_the_formula_over_all_rows_per_hookpoint():
    trainee = make_trainee("dfc", make_config())
    dictionary = trainee.dictionary
    dictionary.threshold.fill_(0.7)
    given = batches(trainee, 4)
    result = evaluate(dictionary, given)
    active = 0
    for name in result.fve:
        x = torch.cat([batch.activations[name] for batch in given])
        codes = [dictionary.encode(batch.activations) for batch in given]
        x_hat = torch.cat([dictionary.decode(code)[name] for code in codes])
        variance = ((x - x.mean(0)) ** 2).sum()
        assert result.fve[name] == pytest.approx(float(1 - ((x - x_hat) ** 2).sum() / variance))
        active = sum(int((code.values > 0).sum()) for code in codes)
    assert (result.l0, result.rows) == (active / 60, 60)


def test_evaluating_changes_no_training_state():
    trainee = make_trainee("dfc", make_config())
    for step in range(10):
        trainee.step(random_batch(trainee, step), step)
    state = (
        trainee.dictionary.state_dict(),
        trainee.optimizer.state_dict()["state"],
        trainee.rows_since_fired,
        trainee.dead,
        [parameter.grad for parameter in trainee.dictionary.parameters()],
        torch.get_rng_state(),
    )
    before = copy.deepcopy(state)
    evaluate(trainee.dictionary, batches(trainee, 3))
    state = (*state[:-1], torch.get_rng_state())
    torch.testing.assert_close(state, before, rtol=0, atol=0)
