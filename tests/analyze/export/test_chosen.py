"""Features by words."""

import pytest
import torch

from analyze.export.chosen import check_model, chosen_features
from pipeline.errors import ConfigError, DictionaryError
from train.dictionary.crosscoder import Crosscoder, HookpointShape
from train.dictionary.partition import dedicated, single_group

SHAPES = (HookpointShape("a.0", "a", 4), HookpointShape("b.0", "b", 6))


@pytest.fixture
def dfc():
    """[a: 3 | shared: 5 | b: 2]."""
    return Crosscoder(SHAPES, dedicated(("a", "b"), 10, {"a": 3, "b": 2}))


@pytest.mark.parametrize(
    ("words", "features"),
    [
        ("all", list(range(10))),
        ("exclusive", [0, 1, 2, 8, 9]),
        ("shared", [3, 4, 5, 6, 7]),
        ("b", [8, 9]),
        ("7", [7]),
        ("9,1-3, 2", [1, 2, 3, 9]),
    ],
)
def test_words_name_features(dfc, words, features):
    assert chosen_features(dfc, words).tolist() == features


def test_those_that_may_be_exclusive_to_a_model_are_its_groups(dfc):
    assert chosen_features(dfc, "exclusive", "a").tolist() == [0, 1, 2]
    assert chosen_features(dfc, "exclusive", "b").tolist() == [8, 9]


def test_without_groups_the_relative_decoder_norm_says_who_may_have_them():
    crosscoder = Crosscoder(SHAPES, single_group(("a", "b"), 5))
    with torch.no_grad():  # R: 1, 0.79, 0.5, 0.1, and nothing at all
        for number, norms in enumerate([[2.0, 7.9, 1, 1, 0], [0, 2.1, 1, 9, 0]]):
            crosscoder.W_dec[str(number)][:, 0] = torch.tensor(norms)
    assert chosen_features(crosscoder, "exclusive", "a").tolist() == [0]
    assert chosen_features(crosscoder, "exclusive", "b").tolist() == [3]
    assert chosen_features(crosscoder, "exclusive").tolist() == [0, 3]


def test_of_a_single_model_every_feature_may_be_its_own():
    sae = Crosscoder(SHAPES[:1], single_group(("a",), 3))
    assert chosen_features(sae, "exclusive").tolist() == [0, 1, 2]


@pytest.mark.parametrize("words", ["", "best", "1;2", "3-", "-3", "1,,2", "1-2-3", "1.5"])
def test_other_words_are_refused_with_those_there_are(dfc, words):
    with pytest.raises(
        ConfigError, match=r"--features: given .*; give all, exclusive, a, shared, b"
    ):
        chosen_features(dfc, words)


@pytest.mark.parametrize("words", ["10", "0-10", "5-4", "99999999999999999999"])
def test_numbers_that_there_are_not_are_refused(dfc, words):
    with pytest.raises(ConfigError, match=f"given '{words}'; the features are 0 to 9"):
        chosen_features(dfc, words)


def test_the_last_model_is_meant_unless_one_is_named(dfc):
    assert check_model(dfc, None) == "b"
    assert check_model(dfc, "a") == "a"
    with pytest.raises(
        DictionaryError, match="--model: given 'c'; the dictionary's models are a, b"
    ):
        check_model(dfc, "c")
