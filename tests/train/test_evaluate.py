"""FVE and L0 in inference mode."""

import numpy as np
import pytest
import torch

from pipeline.errors import DictionaryError
from store.loader import Batch
from train.dictionary.codes import SparseCodes
from train.evaluate import evaluate
from train.variance import VarianceExplained

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


def dense_errors(dictionary, codes_BF, batch) -> dict[str, torch.Tensor]:
    """Squared error of every hookpoint in raw units, decoded by plain products."""
    errors = {}
    for number, hookpoint in enumerate(dictionary.hookpoints):
        directions_FD = torch.zeros(codes_BF.shape[1], hookpoint.width, dtype=torch.float64)
        seen = [
            feature
            for feature, group in enumerate(dictionary.partition.group_of_feature())
            if hookpoint.model in _models(dictionary, group)
        ]
        directions_FD[seen] = dictionary.W_dec[str(number)].detach()
        x_hat = codes_BF @ directions_FD + dictionary.b_dec[str(number)].detach()
        x = batch.activations[hookpoint.name]
        errors[hookpoint.name] = ((x - x_hat / dictionary.scale[number]) ** 2).sum()
    return errors


def _models(dictionary, group: str) -> tuple[str, ...]:
    return next(g.models for g in dictionary.partition.groups if g.name == group)


@pytest.mark.parametrize("partition", ["dfc", "three models", "nothing shared", "single"])
def test_what_a_group_does_is_what_is_lost_without_it(partition):
    trainee = make_trainee(partition, make_config())
    dictionary = trainee.dictionary
    dictionary.threshold.fill_(0.7)
    given = batches(trainee, 3)
    result = evaluate(dictionary, given)
    codes = [dictionary.encode(batch.activations).dense() for batch in given]
    active = sum((code > 0).sum(dim=0) for code in codes)
    whole = [dense_errors(dictionary, *pair) for pair in zip(codes, given, strict=True)]
    scaled = sum(
        float(error) * float(dictionary.scale[number]) ** 2
        for errors in whole
        for number, error in enumerate(errors.values())
    )
    assert result.loss == pytest.approx(scaled / 45)
    assert result.never_fired == float((active == 0).double().mean())
    assert 0 < result.never_fired < 1 or partition != "dfc"
    for group in dictionary.partition.groups:
        here = dictionary.partition.slices[group.name]
        assert result.l0_share[group.name] == pytest.approx(
            float(active[here].sum() / active.sum())
        )
        for hookpoint in dictionary.hookpoints:
            lost = result.fve_share[group.name][hookpoint.name]
            if hookpoint.model not in group.models:
                assert lost == 0
                continue
            x = torch.cat([batch.activations[hookpoint.name] for batch in given])
            without = 0.0
            for code, batch in zip(codes, given, strict=True):
                rest = code.clone()
                rest[:, here] = 0
                without += float(dense_errors(dictionary, rest, batch)[hookpoint.name])
            before = sum(float(errors[hookpoint.name]) for errors in whole)
            variance = float(((x - x.mean(0)) ** 2).sum())
            assert lost == pytest.approx((without - before) / variance, abs=1e-9)
            assert lost != 0


def test_an_evaluation_says_the_scales_and_that_no_forbidden_weight_exists():
    dictionary = make_trainee("dfc", make_config()).dictionary
    result = evaluate(dictionary, [])
    assert result.scale == dict(zip(("a0", "b1"), dictionary.scale.tolist(), strict=True))
    assert result.partition_integrity == 0.0
    assert (result.loss, result.never_fired) == (None, None)
    assert result.l0_share == {"a": None, "shared": None, "b": None}


def test_codes_that_differ_between_hookpoints_stay_so_without_a_group():
    trainee = make_trainee("dfc", make_config())
    (batch,) = batches(trainee, 1)
    dictionary = trainee.dictionary
    dictionary.threshold.fill_(0.7)
    plain = dictionary.encode(batch.activations)
    on_HN = torch.ones(2, len(plain.values), dtype=torch.bool)
    on_HN[1] = False
    one_sided = SparseCodes(plain.pattern, plain.values, on_HN)
    dictionary.encode = lambda activations: one_sided
    result = evaluate(dictionary, [batch])
    assert result.fve_share["shared"]["b1"] == 0
    assert result.fve_share["shared"]["a0"] != 0
