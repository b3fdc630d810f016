from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from train.dictionary.partition import FeatureGroup, Partition, dedicated, single_group

MODELS = ("a", "b", "c")


@st.composite
def partitions(draw: st.DrawFn) -> Partition:
    count = draw(st.integers(1, 6))
    return Partition(
        tuple(
            FeatureGroup(
                f"group{number}",
                tuple(sorted(draw(st.sets(st.sampled_from(MODELS), min_size=1)))),
                draw(st.integers(0, 5)),
            )
            for number in range(count)
        )
    )


@given(partitions())
def test_groups_tile_the_features_in_order(partition):
    tiled = [f for group in partition.groups for f in _range(partition.slices[group.name])]
    assert tiled == list(range(partition.features))


@given(partitions())
def test_every_feature_is_named_by_its_group(partition):
    names = partition.group_of_feature()
    for group in partition.groups:
        assert names[partition.slices[group.name]] == [group.name] * group.size
    assert len(names) == partition.features


@given(partitions(), st.sampled_from(MODELS))
def test_a_model_sees_exactly_the_features_of_its_groups(partition, model):
    seers = {group.name: group.models for group in partition.groups}
    wanted = [f for f, name in enumerate(partition.group_of_feature()) if model in seers[name]]
    assert [f for run in partition.visible(model) for f in _range(run)] == wanted


@given(partitions(), st.sampled_from(MODELS))
def test_visible_runs_are_as_long_as_can_be(partition, model):
    runs = partition.visible(model)
    assert all(left.stop < right.start for left, right in pairwise(runs))


@given(st.integers(20, 500), st.floats(0, 0.4), st.floats(0, 0.4))
def test_each_of_two_models_sees_one_window_of_a_dfc(features, share_a, share_b):
    partition = dedicated(("a", "b"), features, {"a": share_a, "b": share_b})
    assert partition.features == features
    assert [len(partition.visible(model)) for model in ("a", "b")] == [1, 1]


def test_a_dfc_orders_its_groups_as_first_model_shared_others():
    partition = dedicated(("a", "b", "c"), 100, {"a": 0.1, "b": 0.2})
    assert partition.groups == (
        FeatureGroup("a", ("a",), 10),
        FeatureGroup("shared", ("a", "b", "c"), 65),
        FeatureGroup("b", ("b",), 20),
        FeatureGroup("c", ("c",), 5),
    )


@given(st.integers(256, 2**18), st.floats(0, 0.45), st.floats(0, 0.45))
def test_large_groups_of_a_dfc_are_aligned_and_close_to_their_shares(features, share_a, share_b):
    partition = dedicated(("a", "b"), features, {"a": share_a, "b": share_b})
    for model, share in {"a": share_a, "b": share_b}.items():
        size = partition.exclusive_group(model).size
        assert -8 < size - features * share <= 0.5
        assert size < 256 or size % 8 == 0


def test_shares_of_all_features_leave_nothing_shared():
    partition = dedicated(("a", "b"), 1000, {"a": 0.5, "b": 0.5})
    assert [group.size for group in partition.groups] == [500, 0, 500]


def test_sizes_are_shares_or_numbers_of_features():
    partition = dedicated(("a", "b"), 16_384, {"a": 333, "b": 0.05})
    assert [group.size for group in partition.groups] == [333, 16_384 - 333 - 816, 816]


def test_the_exclusive_group_of_a_model_is_the_one_that_no_other_sees():
    partition = dedicated(("a", "b"), 100, {})
    assert partition.exclusive_group("b") == FeatureGroup("b", ("b",), 5)


def test_a_single_group_has_no_exclusive_group():
    assert single_group(("a", "b"), 100).exclusive_group("a") is None


def test_a_share_for_an_unknown_model_is_refused_by_name():
    with pytest.raises(ConfigError, match="unknown model 'z'; the models are a, b"):
        dedicated(("a", "b"), 100, {"z": 0.1})


def test_shares_of_more_than_everything_are_refused():
    with pytest.raises(ConfigError, match=r"train\.exclusive.*leaves a model without features"):
        dedicated(("a", "b"), 100, {"a": 0.6, "b": 0.6})


def test_a_model_that_would_see_nothing_is_refused():
    with pytest.raises(ConfigError, match="leaves a model without features"):
        dedicated(("a", "b", "c"), 100, {"a": 0.6, "b": 0.4, "c": 0.0})


def test_a_model_called_shared_is_refused():
    with pytest.raises(ConfigError, match="cannot be called 'shared'"):
        dedicated(("shared", "b"), 100, {})


def _range(run: slice) -> range:
    return range(run.start, run.stop)
