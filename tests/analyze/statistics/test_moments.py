"""Moments and readout sums beside plain float64 sums over the same rows."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from analyze.statistics.moments import Moments
from analyze.statistics.readout import Readout
from analyze.subject import open_subject
from analyze.sweep.gather import gather
from pipeline.errors import StoreError
from train.dictionary.crosscoder import Crosscoder
from train.dictionary.fold import fold

from ..made import feed, random_rows


@pytest.fixture(scope="module")
def subject(known_store, dfc_folder):
    return open_subject(known_store, dfc_folder)


def stored_rows(subject, whole=False):
    """All rows of the store in scaled units, which are held out, and their codes."""
    store, dictionary = subject.store, subject.dictionary
    names = [h.name for h in dictionary.hookpoints]
    chunks = range(store.chunks)
    raw = {
        name: torch.cat(
            [
                store.activations(name, chunk, 0, int(store.chunk_sizes[chunk])).float()
                for chunk in chunks
            ]
        )
        for name in names
    }
    z = torch.cat(dictionary.scaled(raw, whole), dim=1).double().numpy()
    return z, subject.held_out[store.column("document")], dictionary.encode(raw).dense().numpy()


def assert_spread(spread, z):
    assert spread.rows == len(z)
    np.testing.assert_allclose(spread.covariance_WW, np.cov(z.T, bias=True), atol=1e-6)


def test_means_and_covariances_are_those_of_the_stores_rows(subject):
    moments = Moments(subject)
    gather(subject, [moments], 16)
    z, held_out, _ = stored_rows(subject)
    assert 0 < held_out.sum() < len(z)
    assert_spread(moments.training(), z[~held_out])
    assert_spread(moments.held_out(), z[held_out])
    assert_spread(moments.everything(), z)
    apart = z[held_out].mean(0) - z[~held_out].mean(0)
    found = moments.held_out().mean_W - moments.training().mean_W
    np.testing.assert_allclose(found, apart, atol=1e-6)


def test_readout_sums_are_those_of_the_stores_rows(subject):
    readout, moments = Readout(subject), Moments(subject)
    gather(subject, [readout, moments], 16)
    z, _, codes = stored_rows(subject)
    sums = readout.sums(slice(0, 7), torch.arange(z.shape[1]))
    assert sums.rows == len(z)
    np.testing.assert_allclose(sums.sum_F, codes.sum(0), rtol=1e-6)
    np.testing.assert_allclose(sums.squares_F, (codes.astype(float) ** 2).sum(0), rtol=1e-6)
    centred = sums.products_FD - torch.outer(sums.sum_F, moments.everything().mean_W)
    expected = codes.T.astype(float) @ (z - z.mean(0))
    np.testing.assert_allclose(centred, expected, atol=1e-3)


def test_a_dictionary_with_its_scale_folded_in_has_the_same_moments(subject):
    plain, _ = fold(subject.dictionary)
    assert not torch.equal(plain.norm_scale, torch.ones(2))
    other = replace(subject, dictionary=plain)
    found = []
    for one in (subject, other):
        found.append((Moments(one), Readout(one)))
        gather(one, found[-1], 16)
    for mine, its in zip(*found, strict=True):
        for name, value in mine.state().items():
            torch.testing.assert_close(value, its.state()[name], rtol=1e-4, atol=1e-2)


def test_features_of_residuals_are_read_from_what_the_models_have(subject):
    """The same codes and units as of the dictionary whose residuals they are: the same sums."""
    dictionary = subject.dictionary
    residuals = Crosscoder(dictionary.hookpoints, dictionary.partition, residual=True)
    residuals.load_state_dict({**residuals.state_dict(), **dictionary.state_dict()})
    plain, zero = subject, replace(subject, dictionary=residuals)
    found = []
    for one in (plain, zero):
        found.append((Moments(one), Readout(one)))
        gather(one, found[-1], 16)
    for mine, its in zip(*found, strict=True):
        torch.testing.assert_close(mine.state(), its.state(), rtol=0, atol=0)
    generator = torch.Generator().manual_seed(0)
    for n in (0, 1):
        for what in ("weight", "bias"):
            buffer = residuals.prediction.get_buffer(f"{what}_{n}")
            buffer.copy_(torch.randn(buffer.shape, generator=generator))
    moments, readout = Moments(zero), Readout(zero)
    gather(zero, [moments, readout], 16)
    torch.testing.assert_close(moments.state(), found[0][0].state(), rtol=0, atol=0)
    assert not torch.equal(readout.state()["sum"], found[0][1].state()["sum"])
    z, _, codes = stored_rows(replace(zero, dictionary=residuals), whole=True)
    centred = readout.sums(slice(0, 7), torch.arange(z.shape[1]))
    expected = codes.T.astype(float) @ (z - z.mean(0))
    found_products = centred.products_FD - torch.outer(centred.sum_F, moments.everything().mean_W)
    np.testing.assert_allclose(found_products, expected, atol=1e-2, rtol=1e-4)


def test_a_large_mean_does_not_drown_the_variance(subject):
    rows = random_rows(400)
    far = replace(rows, x=[part + 300 for part in rows.x])
    moments = Moments(subject)
    moments._centred._means = [torch.from_numpy(part.mean(0, keepdims=True)) for part in far.x]
    feed([moments], far)
    assert_spread(moments.everything(), far.z)


@given(st.lists(st.integers(0, 3), min_size=12, max_size=12), st.integers(1, 40))
@settings(deadline=None, max_examples=25)
def test_shares_add_up_whatever_rows_they_saw(known_store, dfc_folder, owners, batch):
    subject = open_subject(known_store, dfc_folder)
    rows = random_rows(240)
    owner = np.repeat(owners, 20)
    whole, total = ([Moments(subject), Readout(subject)] for _ in range(2))
    feed(whole, rows)
    for share in range(4):
        part = [Moments(subject), Readout(subject)]
        feed(part, rows.take(owner == share), batch)
        for mine, its in zip(total, part, strict=True):
            mine.absorb(its.state())
    for mine, its in zip(total, whole, strict=True):
        for name, value in mine.state().items():
            torch.testing.assert_close(value, its.state()[name], rtol=1e-5, atol=1e-3)


def test_activations_that_are_not_finite_are_said(subject):
    rows = random_rows(40)
    rows.x[1][3, 2] = np.inf
    moments = Moments(subject)
    feed([moments], rows)
    with pytest.raises(StoreError, match="not finite; look for the damage with `store verify`"):
        moments.everything()
