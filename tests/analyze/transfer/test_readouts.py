"""Readouts beside least squares on the same rows, and what they say of planted pairs."""

import numpy as np
import pytest
import torch

from analyze.statistics.moments import Moments
from analyze.statistics.readout import Readout
from analyze.subject import open_subject
from analyze.transfer import readouts as module
from analyze.transfer.readouts import linear_readout, readouts

from ..made import Rows, feed, random_rows

A, B = slice(0, 6), slice(6, 14)


@pytest.fixture(scope="module")
def subject(known_store, dfc_folder):
    return open_subject(known_store, dfc_folder)


def filled(subject, rows):
    sums = Moments(subject), Readout(subject)
    feed(sums, rows)
    return sums


def explicit(rows, places, ridge):
    """Adjusted R^2 of each feature by predicting every row."""
    x = np.concatenate([rows.z[:, place] for place in places], axis=1)
    x, f = x - x.mean(0), rows.codes.astype(float)
    f = f - f.mean(0)
    count, width = x.shape
    penalty = ridge * (x**2).mean() * count
    weight = np.linalg.solve(x.T @ x + penalty * np.eye(width), x.T @ f)
    r2 = 1 - ((f - x @ weight) ** 2).sum(0) / (f**2).sum(0)
    return 1 - (1 - r2) * (count - 1) / (count - width - 1)


@pytest.mark.parametrize("ridge", [1e-6, 0.3])
@pytest.mark.parametrize("places", [[A], [B], [A, B]], ids=["one", "wider", "both"])
def test_r2_is_that_of_explicit_predictions(subject, monkeypatch, ridge, places):
    monkeypatch.setattr(module, "FEATURES_AT_ONCE", 3)
    rows = random_rows(300)
    rows.codes[:] = np.maximum(0, rows.codes + 0.2 * rows.x[0][:, :1] * (rows.codes > 0))
    moments, readout = filled(subject, rows)
    found = linear_readout(moments.everything(), readout, places, ridge)
    np.testing.assert_allclose(found, explicit(rows, places, ridge), atol=1e-5)


def planted_rows(count=4000):
    """Feature 0 is a function of what both models have, feature 1 of what model a alone has.

    Feature 5, of model b, is a function of what only b has; feature 2 fires without relation to
    either; features 3, 4 and 6 never fire.
    """
    generator = np.random.default_rng(0)
    x = [generator.normal(size=(count, d)).astype(np.float32) for d in (6, 8)]
    x[1][:, 3] = 2 - 0.5 * x[0][:, 0]
    codes = np.zeros((count, 7), np.float32)
    codes[:, 0] = np.maximum(0, x[0][:, 0] - 0.5)
    codes[:, 1] = np.maximum(0, x[0][:, 1] - 0.5)
    codes[:, 2] = np.maximum(0, generator.normal(size=count))
    codes[:, 5] = np.maximum(0, x[1][:, 0] - 0.5)
    return Rows(x, codes, generator.random(count) < 0.2)


def test_the_ratio_tells_what_the_other_model_has_from_what_it_lacks(subject):
    found = readouts(*filled(subject, planted_rows()), subject)
    ratio = found.ratio_F
    assert ratio[0] == pytest.approx(1, abs=0.02)
    assert ratio[1] == pytest.approx(0, abs=0.02)
    assert ratio[5] == pytest.approx(0, abs=0.02)
    assert found.own_F[[0, 1, 5]].min() > 0.5
    assert found.own_F[2].abs() < 0.01  # adjusted: nothing of either model tells of it


def test_a_feature_that_never_fires_has_no_readout(subject):
    found = readouts(*filled(subject, planted_rows(400)), subject)
    for values in (found.own_F, found.other_F, found.ratio_F):
        assert values[[3, 4, 6]].isnan().all()
    assert not found.own_F[[0, 1, 2, 5]].isnan().any()


def test_a_feature_that_is_always_the_same_has_no_readout(subject):
    rows = planted_rows(400)
    rows.codes[:, 3] = 0.7
    found = readouts(*filled(subject, rows), subject)
    assert found.own_F[3].isnan()


def test_rows_no_more_than_predictors_give_no_readout(subject):
    found = readouts(*filled(subject, planted_rows(9)), subject)
    assert found.other_F[:2].isnan().all()  # 8 predictors and an intercept
    assert not found.own_F[:1].isnan().any()


def test_activations_that_do_not_vary_tell_nothing(subject):
    rows = planted_rows(400)
    rows.x[1][:] = 1.0
    moments, readout = filled(subject, rows)
    found = linear_readout(moments.everything(), readout, [B])
    torch.testing.assert_close(found[:2], torch.full((2,), 1 - 399 / 391).double())
