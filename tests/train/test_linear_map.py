"""Ridge maps beside explicit predictions of every row in float64."""

import numpy as np
import pytest
import torch

from pipeline.errors import StoreError
from train.linear_map import RIDGES, WITHOUT_HELD_OUT, Spread, ridge_factor, ridge_map

from ..analyze.made import random_rows

A, B = slice(0, 6), slice(6, 14)


def spread(z):
    if not len(z):
        return Spread(0, torch.zeros(14).double(), torch.zeros(14, 14).double())
    return Spread(
        len(z), torch.from_numpy(z.mean(0)), torch.from_numpy(np.atleast_2d(np.cov(z.T, bias=True)))
    )


def explicit(train, source, target, ridge):
    """Weights and intercept of the penalized least-squares problem, as one lstsq."""
    x, y = train[:, source], train[:, target]
    x_mean, y_mean = x.mean(0), y.mean(0)
    width = x.shape[1]
    penalty = ridge * np.trace(np.cov(x.T, bias=True)) / width * len(x)
    stacked = np.concatenate([x - x_mean, np.sqrt(penalty) * np.eye(width)])
    wanted = np.concatenate([y - y_mean, np.zeros((width, y.shape[1]))])
    weight = np.linalg.lstsq(stacked, wanted, rcond=None)[0].T
    return weight, y_mean - weight @ x_mean


def predicted_r2(rows, source, target, weight, bias, d=None):
    y, y_hat = rows[:, target], rows[:, source] @ weight.T + bias
    if d is not None:
        y, y_hat = y @ d, y_hat @ d
    return 1 - ((y - y_hat) ** 2).sum() / ((y - y.mean(0)) ** 2).sum()


@pytest.mark.parametrize(("source", "target"), [(A, B), (B, A)])
@pytest.mark.parametrize("count", [40, 3000])
def test_weights_and_r2_are_those_of_explicit_predictions(source, target, count):
    rows = random_rows(count, seed=count)
    train, held = rows.z[~rows.held_out], rows.z[rows.held_out]
    found = ridge_map(spread(train), spread(held), source, target)
    by_strength = {}
    for ridge in RIDGES:
        weight, bias = explicit(train, source, target, ridge)
        by_strength[ridge] = predicted_r2(held, source, target, weight, bias)
    assert found.ridge == max(by_strength, key=by_strength.get)
    weight, bias = explicit(train, source, target, found.ridge)
    np.testing.assert_allclose(found.weight_TS, weight, atol=1e-8)
    np.testing.assert_allclose(found.bias_T, bias, atol=1e-8)
    assert found.r2 == pytest.approx(by_strength[found.ridge], abs=1e-9)
    assert found.r2_fit == pytest.approx(predicted_r2(train, source, target, weight, bias))
    assert (found.rows, found.held_out_rows) == (len(train), len(held))
    d = np.random.default_rng(1).normal(size=(5, target.stop - target.start))
    expected = [predicted_r2(held, source, target, weight, bias, one) for one in d]
    np.testing.assert_allclose(found.r2_along(torch.from_numpy(d)), expected, atol=1e-9)


def test_few_rows_ask_for_a_stronger_ridge_than_many():
    def chosen(count):
        rows = random_rows(count, seed=3)
        train, held = rows.z[~rows.held_out], rows.z[rows.held_out]
        return ridge_map(spread(train), spread(held), A, B).ridge

    assert chosen(24) > chosen(20_000)


def test_an_exact_affine_image_is_found_whole_and_noise_not_at_all():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(2000, 6))
    image = x @ generator.normal(size=(6, 4)) + 5
    z = np.concatenate([x, image, generator.normal(size=(2000, 4))], axis=1)
    held = np.arange(2000) % 4 == 0
    found = ridge_map(spread(z[~held]), spread(z[held]), A, B)
    along = found.r2_along(torch.eye(8).double())
    np.testing.assert_allclose(along[:4], 1, atol=1e-6)
    assert (along[4:].abs() < 0.02).all()


def test_a_direction_without_variance_has_no_r2():
    rows = random_rows(100).z
    rows[:, 9] = 2.0
    found = ridge_map(spread(rows[:80]), spread(rows[80:]), A, B)
    along = found.r2_along(torch.eye(8).double()[3:5])
    assert along[0].isnan()
    assert not along[1].isnan()


def test_without_held_out_rows_there_is_a_map_and_no_r2():
    z = random_rows(100).z
    found = ridge_map(spread(z), spread(z[:0]), A, B)
    assert found.ridge == WITHOUT_HELD_OUT
    assert np.isnan(found.r2)
    assert found.r2_along(torch.eye(8).double()).isnan().all()
    weight, bias = explicit(z, A, B, WITHOUT_HELD_OUT)
    assert found.r2_fit == pytest.approx(predicted_r2(z, A, B, weight, bias))


def test_a_store_without_training_rows_is_refused_with_the_remedy():
    z = random_rows(100).z
    with pytest.raises(StoreError, match="needs training rows, the store has 1; harvest more"):
        ridge_map(spread(z[:1]), spread(z), A, B)


def test_a_covariance_that_rounding_left_indefinite_is_solved_with_a_stronger_ridge():
    vectors = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 5)))[0]
    rounded = torch.from_numpy((vectors * [1, 1, 1, 1, -1e-4]) @ vectors.T)
    factor = ridge_factor(rounded, 1e-6)
    assert factor.ridge == pytest.approx(1e-3)
    strong = rounded + factor.penalty * torch.eye(5)
    right = torch.from_numpy(vectors[:, :2].copy())
    torch.testing.assert_close(strong @ factor.solve(right), right)


def test_what_does_not_vary_at_all_maps_to_nothing():
    z = np.ones((10, 14))
    found = ridge_map(spread(z), spread(z), A, B)
    assert not found.weight_TS.any()
    assert np.isnan(found.r2)
