"""Directions carried over to the other model, where how is known: its features are coordinates."""

import numpy as np
import pytest
import torch

from analyze.causal.steer_mapped import Carrier
from analyze.causal.steer_steps import median_norm, own_steps
from analyze.statistics.firing import Firing
from analyze.statistics.moments import Moments
from analyze.subject import open_subject
from analyze.sweep.gather import gather

ONLY_A, SHARED, ONLY_B = 0, 2, 5


@pytest.fixture(scope="module")
def summed(known_store, dfc_folder):
    subject = open_subject(known_store, dfc_folder, "cpu")
    firing, moments = Firing(subject.features, subject.labels), Moments(subject)
    gather(subject, [firing, moments], 64)
    return subject, firing, moments


def carried(summed, feature):
    subject, firing, moments = summed
    own = own_steps(subject, feature, float(firing.largest[feature]), ("a", "b"))
    return own, Carrier(subject, moments).steps(own)


def least_squares(subject, source: str, target: str) -> np.ndarray:
    """(target, source): the plain regression of one hookpoint's training rows on the other's."""
    store = subject.store
    training = ~subject.held_out[store.column("document")]
    x, y = (
        torch.cat([store.activations(name, chunk) for chunk in range(store.chunks)])
        .double()
        .numpy()[training]
        for name in (source, target)
    )
    return np.linalg.lstsq(x - x.mean(0), y - y.mean(0), rcond=1e-6)[0].T


@pytest.mark.parametrize("feature", [ONLY_A, SHARED, ONLY_B])
def test_a_direction_arrives_where_a_plain_regression_takes_it(summed, feature):
    own, (step,) = carried(summed, feature)
    first = next(one for one in own if one.steered == one.claimed_for)
    wanted = least_squares(summed[0], first.hookpoint, step.hookpoint) @ first.vector_D.numpy()
    cosine = torch.cosine_similarity(step.vector_D, torch.from_numpy(wanted), dim=0)
    assert float(cosine) > 0.999
    assert (step.mapped, step.feature) == (True, feature)
    assert step.hookpoint == {"a": "a.mid.out", "b": "b.mid.out"}[step.steered]


@pytest.mark.parametrize("feature", [ONLY_A, ONLY_B])
def test_an_exclusive_direction_is_carried_to_the_other_model_alone(summed, feature):
    own, (step,) = carried(summed, feature)
    owner, other = ("a", "b") if feature == ONLY_A else ("b", "a")
    assert (step.claimed_for, step.steered) == (owner, other)
    assert [one.mapped for one in own] == [False, False]
    assert step.carry_DS.shape == ((8, 6) if other == "b" else (6, 8))


@pytest.mark.parametrize("feature", [ONLY_A, SHARED, ONLY_B])
def test_its_length_is_that_of_the_own_step_relative_to_the_median_norm(summed, feature):
    own, (step,) = carried(summed, feature)
    first = next(one for one in own if one.steered == one.claimed_for)
    lengths = [
        float(one.vector_D.norm()) / median_norm(summed[0], one.number) for one in (first, step)
    ]
    assert lengths[1] == pytest.approx(lengths[0])
    assert step.relative == pytest.approx(lengths[0])


def test_its_control_is_carried_by_the_same_map(summed):
    _, (step,) = carried(summed, SHARED)
    control = step.control(5)
    assert float(control.vector_D.norm()) == pytest.approx(float(step.vector_D.norm()))
    found = torch.linalg.lstsq(step.carry_DS, control.vector_D[:, None], driver="gelsd").solution
    back = (step.carry_DS @ found)[:, 0]
    torch.testing.assert_close(back, control.vector_D, rtol=1e-6, atol=1e-9)
    assert torch.linalg.matrix_rank(step.carry_DS, rtol=1e-3) < 8  # so that this says something


def test_hookpoints_that_are_not_pairs_carry_nothing(summed):
    subject, firing, moments = summed
    carrier = Carrier(subject, moments)
    carrier._pairs = []
    own = own_steps(subject, SHARED, float(firing.largest[SHARED]), ("a", "b"))
    assert carrier.steps(own) == []
