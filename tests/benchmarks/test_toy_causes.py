"""What makes features fire, for features that are known sums of concepts."""

import numpy as np
import pytest
import torch

from benchmarks.toy_causes import own_shares
from benchmarks.toy_model import ToySpec, build_toy
from train.dictionary.crosscoder import Crosscoder, HookpointShape
from train.dictionary.partition import single_group

WIDTHS = (24, 28)
TOY = build_toy(ToySpec(20, WIDTHS, 0.2, active=3.0))
A, B, SHARED = (np.flatnonzero(TOY.owner == owner).tolist() for owner in ("a", "b", "shared"))
# Each feature is a sum of strengths, read off the one model or the other.
FEATURES = [
    ("a", {A[0]: 1.0}),
    ("a", {SHARED[0]: 2.0}),
    ("b", {B[1]: 1.0}),
    ("a", {A[0]: 1.0, A[2]: 0.7}),
    ("a", {A[1]: 1.0, SHARED[1]: 0.8}),
    ("b", {B[0]: 0.3, SHARED[2]: 1.0}),
    ("a", {}),
]


@pytest.fixture(scope="module")
def dictionary() -> Crosscoder:
    shapes = tuple(HookpointShape(f"{m}.toy", m, d) for m, d in zip("ab", WIDTHS, strict=True))
    found = Crosscoder(shapes, single_group(("a", "b"), len(FEATURES)))
    with torch.no_grad():
        for number, model in enumerate("ab"):
            reader_DC = torch.linalg.pinv(TOY.concepts(model).double())
            for feature, (read_from, parts) in enumerate(FEATURES):
                weight = torch.zeros(WIDTHS[number], dtype=torch.float64)
                for concept, strength in parts.items():
                    weight += strength * reader_DC[:, concept]
                found.W_dec[str(number)][feature] = 1.0  # what decodes nothing is never active
                found.W_enc[str(number)][feature] = weight.float() * (read_from == model)
    return found


def test_shares_are_those_of_the_variances_of_what_is_summed(dictionary):
    found = own_shares(dictionary, TOY, 40_000)
    sample = TOY.sample(40_000, seed=5)
    variance = sample.dense(20).double().var(dim=0).tolist()
    for model, own in (("a", A), ("b", B)):
        for feature, (_, parts) in enumerate(FEATURES[:-1]):
            said = {concept: c**2 * variance[concept] for concept, c in parts.items()}
            expected = sum(said[c] for c in said if c in own) / sum(said.values())
            assert found[model][feature] == pytest.approx(expected, abs=0.03)


def test_a_feature_that_never_fires_has_no_cause(dictionary):
    found = own_shares(dictionary, TOY, 5_000)
    assert np.isnan([shares[-1] for shares in found.values()]).all()
