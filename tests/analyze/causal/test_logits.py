"""Cross entropy and KL at places of a pass, against torch.distributions over whole tensors."""

import numpy as np
import pytest
import torch
from torch.distributions import Categorical, kl_divergence

from analyze.causal import logits as module
from analyze.causal.batches import padded_batches
from analyze.causal.logits import Predictions, compare, cross_entropy, predictions
from analyze.causal.passages import Reading


def reading(ids, positions) -> Reading:
    return Reading(np.array(ids, np.int64), np.array(positions, np.int64))


READINGS = [reading([5, 6, 7, 8], [1, 2, 3]), reading([9, 10], [0]), reading([3, 4, 1], [0, 2])]


def test_predictions_are_of_rows_that_a_token_follows():
    """Not of a text's last token, whether padding follows it or the next text's line."""
    (batch,) = padded_batches(READINGS, 100)
    at = predictions(batch)
    tokens = batch.input_ids.flatten()
    follows = {0: 7, 1: 8, 3: 10, 4: 4}  # rows 2 and 5 are last tokens
    assert dict(zip(at.rows.tolist(), at.targets.tolist(), strict=True)) == follows
    before = {0: 6, 1: 7, 3: 9, 4: 3}
    assert dict(zip(at.rows.tolist(), tokens[at.places].tolist(), strict=True)) == before


@pytest.fixture(params=[1, 40, 1 << 24])
def sliced(request, monkeypatch):
    monkeypatch.setitem(module.SLICE_VALUES, "cpu", request.param)


def scores(dtype=torch.float64, scale=3.0):
    generator = torch.Generator().manual_seed(0)
    shape = (2, 9, 17)
    clean = torch.randn(shape, generator=generator) * scale
    changed = clean + torch.randn(shape, generator=generator)
    places = torch.tensor([0, 3, 4, 8, 11, 16])
    targets = torch.tensor([1, 0, 16, 5, 5, 9])
    return clean.to(dtype), changed.to(dtype), Predictions(torch.arange(6), places, targets)


@pytest.mark.usefixtures("sliced")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_measures_are_those_of_whole_distributions(dtype):
    clean, changed, at = scores(dtype)
    p = Categorical(logits=clean.double().flatten(0, 1)[at.places])
    q = Categorical(logits=changed.double().flatten(0, 1)[at.places])
    torch.testing.assert_close(cross_entropy(clean, at), -p.log_prob(at.targets))
    found = compare(clean, changed, at)
    torch.testing.assert_close(found.cross_entropy, -q.log_prob(at.targets))
    torch.testing.assert_close(found.kl, kl_divergence(p, q))
    assert found.agrees.tolist() == (p.probs.argmax(1) == q.probs.argmax(1)).tolist()
    assert 0 < found.agrees.sum() < len(found.agrees)
    assert found.kl.dtype == torch.float64


def test_equal_scores_diverge_by_nothing_though_shifted_and_far_apart():
    clean, _, at = scores(scale=200.0)
    found = compare(clean, clean + 7, at)
    torch.testing.assert_close(found.kl, torch.zeros(6, dtype=torch.float64), atol=1e-12, rtol=0)
    assert found.agrees.all()


def test_tokens_that_no_text_has_take_no_part():
    clean, changed, at = scores()
    wanted = compare(clean, changed, at)
    shut = torch.full((2, 9, 3), -torch.inf, dtype=torch.float64)
    found = compare(torch.cat([clean, shut], 2), torch.cat([changed, shut], 2), at)
    torch.testing.assert_close(found.kl, wanted.kl)
    torch.testing.assert_close(found.cross_entropy, wanted.cross_entropy)


def test_where_nothing_is_predicted_there_are_no_measures():
    clean, changed, _ = scores()
    none = torch.zeros(0, dtype=torch.int64)
    at = Predictions(none, none, none)
    assert len(cross_entropy(clean, at)) == len(compare(clean, changed, at).kl) == 0
