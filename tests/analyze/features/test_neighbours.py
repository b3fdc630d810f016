"""Nearest features, against cosines of all pairs in float64."""

import numpy as np
import pytest
import torch

from analyze.features import neighbours as module
from analyze.features.neighbours import neighbours_table
from train.dictionary.crosscoder import Crosscoder, HookpointShape
from train.dictionary.partition import dedicated, single_group

F = 20
SHAPES = (
    HookpointShape("a.1.out", "a", 5),
    HookpointShape("b.1.out", "b", 7),
    HookpointShape("a.2.out", "a", 6),
    HookpointShape("b.2.out", "b", 4, writes=False),
)


@pytest.fixture
def dictionary():
    """Two reconstructed hookpoints of model a in other units; features 3 and 17 have no norm."""
    made = Crosscoder(SHAPES, dedicated(("a", "b"), F, {"a": 4, "b": 5}))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for number, weights in made.W_dec.items():
            weights.copy_(torch.randn(weights.shape, generator=generator))
            local = made.visibility(int(number)).local_F[torch.tensor([3, 17])]
            weights[local[local >= 0]] = 0
        made.norm_scale.copy_(torch.tensor([0.5, 1.0, 3.0, 1.0]))
    return made


def naive(dictionary, model, feature, alive, count):
    """(neighbour, cosine) of a feature, nearest first."""
    vectors = {}
    for candidate in range(F):
        parts = []
        for n in dictionary.outputs:
            local = int(dictionary.visibility(n).local_F[candidate])
            if dictionary.hookpoints[n].model == model and local >= 0:
                scale = float(dictionary.norm_scale[n])
                parts.append(scale * dictionary.W_dec[str(n)][local].detach().double().numpy())
        if parts and np.linalg.norm(np.concatenate(parts)) > 0:
            vectors[candidate] = np.concatenate(parts)
    if feature not in vectors:
        return []
    own = vectors.pop(feature)
    cosines = {
        candidate: own @ other / np.linalg.norm(own) / np.linalg.norm(other)
        for candidate, other in vectors.items()
        if alive[candidate]
    }
    return sorted(cosines.items(), key=lambda pair: -pair[1])[:count]


@pytest.mark.parametrize("at_once", [1, 40, 1 << 20])
@pytest.mark.parametrize("count", [1, 5, 100])
def test_neighbours_are_the_nearest_of_those_alive_by_model(
    dictionary, monkeypatch, at_once, count
):
    monkeypatch.setattr(module, "COSINES_AT_ONCE", at_once)
    alive = np.arange(F) % 4 != 1
    features = np.array([19, 0, 3, 8, 17, 5])
    table = neighbours_table(dictionary, features, alive, count)
    for model in "ab":
        for feature in features.tolist():
            own = table.filter(feature=feature, model=model).sort("rank")
            expected = naive(dictionary, model, feature, alive, count)
            assert own["neighbour"].to_list() == [neighbour for neighbour, _ in expected]
            assert own["rank"].to_list() == list(range(1, len(expected) + 1))
            np.testing.assert_allclose(own["cosine"], [c for _, c in expected], atol=1e-5)


def test_a_feature_that_is_alone_has_no_neighbours():
    made = Crosscoder(SHAPES[:2], single_group(("a", "b"), 1))
    with torch.no_grad():
        made.W_dec["0"].fill_(1)
    assert neighbours_table(made, np.array([0]), np.ones(1, bool)).is_empty()


def test_a_model_that_is_only_read_has_no_neighbours_and_the_other_has():
    shapes = (HookpointShape("a", "a", 5, writes=False), HookpointShape("b", "b", 7))
    made = Crosscoder(shapes, single_group(("a", "b"), 6))
    with torch.no_grad():
        made.W_dec["1"].copy_(torch.randn(6, 7, generator=torch.Generator().manual_seed(0)))
    table = neighbours_table(made, np.array([2]), np.ones(6, bool))
    assert table["model"].to_list() == ["b"] * 5
