"""Partitions as users write them, and weights that must keep to one."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError, DictionaryError
from train.dictionary.feature_partition import FeaturePartition, verify_partition_integrity
from train.dictionary.partition import FeatureGroup, dedicated

MODELS = ("a", "b", "c")
KEYS = ["a", "b", "c", ("a", "b"), ("b", "c"), ("c", "a")]


def test_shares_and_numbers_of_features():
    partition = FeaturePartition(10_000, {"a": 0.05, "b": 512})
    assert partition.groups == (
        FeatureGroup("a", ("a",), 500),
        FeatureGroup("shared", ("a", "b"), 8988),
        FeatureGroup("b", ("b",), 512),
    )


def test_the_papers_sizes():
    sizes = [g.size for g in FeaturePartition(131_072, {"a": 0.05, "b": 0.05}).groups]
    assert sizes == [6554, 117_964, 6554]


def test_two_models_give_the_partition_of_the_dfc_recipe():
    wanted = dedicated(("x", "y"), 1000, {"x": 0.1, "y": 0.03})
    assert FeaturePartition(1000, {"x": 0.1, "y": 0.03}, ("x", "y")) == wanted


@given(st.integers(1, 500), st.dictionaries(st.sampled_from(KEYS), st.integers(0, 80)))
def test_every_feature_is_in_one_group_and_every_model_sees_what_it_is_given(features, sizes):
    own = sum(sizes.values())
    if own > features:
        with pytest.raises(ConfigError, match=f"takes {own} of {features} features"):
            FeaturePartition(features, sizes, MODELS)
        return
    seen = {m for key, size in sizes.items() if size for m in ([key] if key in MODELS else key)}
    if own == features and seen != set(MODELS):
        with pytest.raises(ConfigError, match="without features"):
            FeaturePartition(features, sizes, MODELS)
        return
    partition = FeaturePartition(features, sizes, MODELS)
    assert partition.features == features
    found = {frozenset(group.models): group.size for group in partition.groups}
    assert len(found) == len(partition.groups)
    wanted = {frozenset(key): size for key, size in sizes.items() if size}
    assert found == {**wanted, frozenset(MODELS): features - own}


@pytest.mark.parametrize(
    ("exclusive", "message"),
    [
        ({"z": 0.1}, "unknown model 'z'; the models are a, b"),
        ({("a", "z"): 3}, "unknown model 'z'"),
        ({(): 3}, "a group without a model"),
        ({("a", "b"): 3}, "a and b are all models"),
        ({"a": 1.5}, r"a: 1\.5 is no share between 0 and 1"),
        ({"a": 512.0}, r"write 512 without a point"),
        ({"a": float("nan")}, "a: nan is no share"),
        ({"a": -0.1}, r"a: -0\.1 is no share"),
        ({"a": -1}, "a: -1 features; needs 0 or more"),
        ({"a": True}, "a: True is neither a share nor a number"),
        ({"a": "5%"}, "a: '5%' is neither a share nor a number"),
        ({"a": 0.5, ("a",): 2}, "a: named twice"),
        ({"a": 60, "b": 60}, "takes 120 of 100 features"),
        ({"a": 1.0}, "leaves 'b' without features"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(exclusive, message):
    with pytest.raises(ConfigError, match=message) as caught:
        FeaturePartition(100, exclusive)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("models", [(), ("a", "a"), ("a", "shared")])
def test_models_need_names_of_their_own(models):
    with pytest.raises(ConfigError, match="needs different names"):
        FeaturePartition(100, {}, models)


def full_width(partition, widths) -> tuple[list, list]:
    """Random weights (F, d) per hookpoint that keep to a partition of a (6), shared, b (4)."""
    torch.manual_seed(0)
    encoder, decoder = ([torch.randn(24, width) for width in widths] for _ in range(2))
    for weights in (encoder, decoder):
        weights[0][20:] = 0
        weights[1][:6] = 0
    return encoder, decoder


PARTITION = FeaturePartition(24, {"a": 6, "b": 4})


@pytest.mark.parametrize("stacked", [False, True])
def test_weights_that_keep_to_the_partition_violate_nothing(stacked):
    encoder, decoder = full_width(PARTITION, (5, 5) if stacked else (5, 7))
    if stacked:
        encoder, decoder = torch.stack(encoder), torch.stack(decoder)
    found = verify_partition_integrity(encoder, decoder, PARTITION)
    assert (found.encoder_max, found.decoder_max) == (0.0, 0.0)


def test_the_largest_violation_within_the_tolerance_is_told():
    encoder, decoder = full_width(PARTITION, (5, 7))
    encoder[0][21, 3], decoder[1][2, 2] = -7e-7, 5e-7
    found = verify_partition_integrity(encoder, decoder, PARTITION)
    assert found.encoder_max == pytest.approx(7e-7)
    assert found.decoder_max == pytest.approx(5e-7)


@pytest.mark.parametrize(("side", "other"), [("encoder", 0), ("decoder", 1)])
@pytest.mark.parametrize("value", [-0.5, float("nan"), float("inf")])
def test_the_largest_violation_is_named_with_its_place(side, other, value):
    weights = full_width(PARTITION, (5, 7))
    weights[other][0][20, 1] = 0.25
    weights[other][1][3, 2] = value
    size = "0.5" if value == -0.5 else "inf"
    with pytest.raises(DictionaryError) as caught:
        verify_partition_integrity(*weights, PARTITION, {"base.16": "a", "chat.16": "b"})
    assert str(caught.value).startswith(
        f"{side} of chat.16, feature 3 (of group 'a'): a weight of {size} where the partition"
    )


def test_several_hookpoints_of_one_model_keep_to_its_features():
    encoder, decoder = full_width(PARTITION, (5, 7))
    hookpoints = {"a.1": "a", "b.1": "b", "a.2": "a"}
    third = torch.ones(24, 3)
    with pytest.raises(DictionaryError, match=r"encoder of a\.2, feature 20 \(of group 'b'\)"):
        verify_partition_integrity([*encoder, third], [*decoder, third], PARTITION, hookpoints)


def test_weights_of_another_shape_are_refused():
    encoder, decoder = full_width(PARTITION, (5, 7))
    with pytest.raises(DictionaryError, match="weights of 1 hookpoints, but there are a, b"):
        verify_partition_integrity(encoder[:1], decoder, PARTITION)
    with pytest.raises(DictionaryError, match=r"decoder of a: shape \(5, 24\)"):
        verify_partition_integrity(encoder, [W.T for W in decoder], PARTITION)
