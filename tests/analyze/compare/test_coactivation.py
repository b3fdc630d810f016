"""Correlations of kept pairs beside those of dense codes of all rows."""

from pathlib import Path

import numpy as np
import pytest
import torch

from analyze.compare import coactivation
from analyze.compare.coactivation import Coactivation
from analyze.compare.directions import nearest
from analyze.subject import Subject
from analyze.sweep.gather import gather
from train.dictionary.crosscoder import HookpointShape
from train.dictionary.partition import dedicated, single_group

from .test_directions import MODELS, randomised

SHAPES = (HookpointShape("a.mid.out", "a", 6), HookpointShape("b.mid.out", "b", 8))


@pytest.fixture(scope="module")
def subjects(known_store):
    first = randomised(SHAPES, dedicated(MODELS, 10, {"a": 3, "b": 2}), 0)
    other = randomised(SHAPES, dedicated(MODELS, 7, {"a": 1, "b": 2}), 1)
    with torch.no_grad():
        for dictionary in (first, other):
            dictionary.b_enc.zero_()
            dictionary.threshold.fill_(0.5)
        first.b_enc[1] = -1e6  # never fires
    return tuple(Subject(known_store, d, Path("nowhere")) for d in (first, other))


def dense(subject) -> np.ndarray:
    """Codes of every row of the store, (rows, F), float64."""
    store, parts = subject.store, []
    for chunk in range(store.chunks):
        rows = {h.name: store.activations(h.name, chunk) for h in store.schema.hookpoints}
        parts.append(subject.dictionary.encode(rows).dense())
    return torch.cat(parts).double().numpy()


@pytest.mark.parametrize(("count", "block"), [(1, 1 << 22), (4, 1 << 22), (4, 30), (50, 30)])
def test_correlations_are_those_of_dense_codes(subjects, monkeypatch, count, block):
    monkeypatch.setattr(coactivation, "BLOCK_PRODUCTS", block)
    near = nearest(subjects[0].dictionary, subjects[1].dictionary, count)
    sums = Coactivation(*subjects, near)
    gather(subjects[0], [sums], 32)
    codes = [dense(subject) for subject in subjects]
    with np.errstate(invalid="ignore"):
        exact = np.corrcoef(*codes, rowvar=False)[:10, 10:]
    assert np.isnan(exact[1]).all()
    assert np.isfinite(exact).sum() > 35
    found = sums.correlations()
    for candidates, r, table in (
        (near.of_first, found.of_first, exact),
        (near.of_other, found.of_other, exact.T),
    ):
        for feature, places in enumerate(candidates.features.tolist()):
            for place, value in zip(places, r[feature].tolist(), strict=True):
                wanted = table[feature, place] if place >= 0 else np.nan
                assert value == pytest.approx(wanted, abs=1e-6, nan_ok=True)
    assert len(found.apart) == 2  # a's own with b's own, and the reverse
    for (rows, columns), r in zip(near.apart, found.apart, strict=True):
        np.testing.assert_allclose(r.numpy(), exact[rows, columns], atol=1e-6)
    for fires, code in zip(sums.fires(), codes, strict=True):
        assert fires.tolist() == (code > 0).sum(axis=0).tolist()


def test_a_dictionary_that_never_fires_correlates_with_nothing(subjects, known_store):
    silent = randomised(SHAPES, single_group(MODELS, 4), 2)
    with torch.no_grad():
        silent.b_enc.fill_(-1e6)
    other = Subject(known_store, silent, Path("nowhere"))
    near = nearest(subjects[0].dictionary, silent, 3)
    sums = Coactivation(subjects[0], other, near)
    gather(subjects[0], [sums], 32)
    assert sums.correlations().of_first.isnan().all()
    assert sums.fires()[1].sum() == 0
