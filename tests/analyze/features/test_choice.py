import numpy as np
import pytest
import torch

from analyze.features import choice as module
from analyze.features.choice import candidates, check_features, cofiring, strongest
from pipeline.errors import ConfigError
from train.dictionary.crosscoder import Crosscoder, HookpointShape
from train.dictionary.partition import dedicated, single_group

SHAPES = (HookpointShape("a.out", "a", 3), HookpointShape("b.out", "b", 4))
NORMS = {"a": [1, 1, 9, 8.1, 0.1, 0, 0], "b": [1, 9, 1, 1.9, 1, 1, 0]}


@pytest.fixture
def crosscoder():
    """Relative decoder norms 0.5, 0.1, 0.9, 0.81, 0.09, 0 and none."""
    made = Crosscoder(SHAPES, single_group(("a", "b"), 7))
    with torch.no_grad():
        for number, norms in enumerate(NORMS.values()):
            made.W_dec[str(number)][:, 0] = torch.tensor(norms, dtype=torch.float32)
    return made


@pytest.fixture
def dfc():
    made = Crosscoder(SHAPES, dedicated(("a", "b"), 9, {"a": 3, "b": 2}))
    with torch.no_grad():
        made.W_dec["0"][:3, 1] = torch.tensor([1.0, 3.0, 2.0])
    return made


def own(found):
    return {model: features.tolist() for model, features in found.items()}


def test_members_of_exclusive_groups_may_be_exclusive(dfc):
    assert own(candidates(dfc)) == {"a": [0, 1, 2], "b": [7, 8]}


def test_without_such_groups_extreme_relative_norms_say_who_may_be(crosscoder):
    assert own(candidates(crosscoder)) == {"a": [2, 3], "b": [1, 4, 5]}


def test_a_model_without_a_group_has_none_where_the_other_has_one():
    made = Crosscoder(SHAPES, dedicated(("a", "b"), 9, {"a": 3, "b": 0}))
    assert own(candidates(made)) == {"a": [0, 1, 2], "b": []}


def test_of_too_many_candidates_those_with_the_largest_norms_are_paired(dfc, monkeypatch):
    monkeypatch.setattr(module, "MOST_PER_MODEL", 2)
    found = cofiring(dfc)
    assert (found.first.tolist(), found.second.tolist()) == ([1, 2], [7, 8])


def test_the_strongest_fire_most_in_sum_and_silent_ones_are_left_out():
    activation_F = np.array([0, 3.0, 5.0, 1.0, 4.0])
    assert strongest(np.array([0, 1, 3, 4]), activation_F, 2).tolist() == [4, 1]
    assert strongest(np.array([0, 3]), activation_F, 9).tolist() == [3]


@pytest.mark.parametrize("number", [-1, 9])
def test_a_number_that_no_feature_has_is_refused_with_the_range(dfc, number):
    with pytest.raises(ConfigError, match=f"^feature {number}: .* features 0 to 8$"):
        check_features(dfc, [0, number])
