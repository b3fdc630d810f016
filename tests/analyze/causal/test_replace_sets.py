"""Which features a ranking puts into which half."""

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from analyze.causal.replace_plots import bars
from analyze.causal.replace_sets import candidates, default_rankings, feature_sets
from analyze.config import AnalyzeConfig
from analyze.tables import Tables
from pipeline.errors import ConfigError
from train.dictionary.crosscoder import Crosscoder, HookpointShape
from train.dictionary.partition import dedicated

FEATURES = 12
FIRES = np.ones(FEATURES, np.int64)
EVERY = np.ones(FEATURES, bool)


@pytest.fixture(scope="module")
def dictionary():
    """[a: 2 | shared: 8 | b: 2]; the shared ones' R are from 0.1 to 0.75."""
    shapes = (HookpointShape("a.x.out", "a", 1), HookpointShape("b.x.out", "b", 1))
    found = Crosscoder(shapes, dedicated(("a", "b"), FEATURES, {"a": 2, "b": 2}))
    shares = torch.linspace(0.1, 0.75, 8)
    with torch.no_grad():
        found.W_dec["0"].copy_(torch.cat([torch.ones(2), shares])[:, None])
        found.W_dec["1"].copy_(torch.cat([1 - shares, torch.ones(2)])[:, None])
    return found


@pytest.fixture
def tables(tmp_path):
    return Tables(tmp_path, "this")


def members(one) -> list[int]:
    return np.flatnonzero(one.members).tolist()


def by_name(sets, name):
    return [one for one in sets if one.name == name]


def test_by_norm_the_best_half_is_farthest_from_one_half(dictionary, tables):
    sets = feature_sets(dictionary, EVERY, ["norm"], tables, 0, 0)
    assert [(one.name, one.ranking) for one in sets] == [
        ("worst", "norm"), ("best", "norm"), ("all", None),
    ]  # fmt: skip
    worst, best, every = sets
    assert members(best) == [0, 1, 2, 3, 10, 11]
    assert members(worst) == [4, 5, 6, 7, 8, 9]
    assert members(every) == list(range(FEATURES))


def test_by_q_those_without_a_verdict_come_last_by_norm(dictionary, tables):
    q = {"feature": [6, 5, 0, 10], "q": [0.001, None, 0.3, 0.3], "verdict": ["exclusive"] * 4}
    tables.write("exclusivity", pl.DataFrame(q))
    worst, best, _ = feature_sets(dictionary, EVERY, ["q"], tables, 0, 0)
    assert members(best) == [0, 1, 2, 6, 10, 11]
    assert members(worst) == [3, 4, 5, 7, 8, 9]
    assert default_rankings(tables) == ["q"]


def test_any_number_of_a_table_ranks_and_a_minus_turns_it_round(dictionary, tables):
    numbers = np.random.default_rng(0).permutation(FEATURES)
    lines = {"feature": np.repeat(np.arange(FEATURES), 2), "x": np.repeat(numbers, 2) + 0.0}
    lines["x"] += np.tile([-0.25, 0.25], FEATURES)  # a feature's lines count by their mean
    tables.write("other", pl.DataFrame(lines))
    sets = feature_sets(dictionary, EVERY, ["other.x", "-other.x"], tables, 0, 0)
    worst, best, worst_turned, best_turned, _ = sets
    assert members(best) == members(worst_turned) == sorted(np.flatnonzero(numbers < 6).tolist())
    assert members(worst) == members(best_turned)


@pytest.mark.parametrize(
    ("ranking", "message"),
    [
        ("q", r"--ranking q: no table exclusivity of features in .*; run the command"),
        ("scaling.nu_eps", r"no table scaling"),
        ("what", r"no table what"),
        ("other.y", r"table other has no number 'y'; it has x"),
        ("stranger.x", r"no table stranger"),
    ],
)
def test_a_ranking_that_is_not_there_is_named(dictionary, tables, tmp_path, ranking, message):
    frame = pl.DataFrame({"feature": [0], "x": [1.0], "y": ["word"]})
    tables.write("other", frame)
    Tables(tmp_path, "another dictionary").write("stranger", frame)
    assert default_rankings(tables) == ["norm"]
    with pytest.raises(ConfigError, match=message):
        feature_sets(dictionary, EVERY, [ranking], tables, 0, 0)


@given(
    st.lists(st.booleans(), min_size=FEATURES, max_size=FEATURES).filter(lambda x: sum(x) > 1),
    st.integers(0, 3),
    st.integers(0, 5),
)
def test_halves_are_of_one_size_and_of_the_candidates(dictionary, tmp_path_factory, few, n, seed):
    chosen = np.array(few)
    tables = Tables(tmp_path_factory.getbasetemp() / "none", "this")
    sets = feature_sets(dictionary, chosen, ["norm"], tables, n, seed)
    half = int(chosen.sum()) // 2
    (best,), (worst,) = by_name(sets, "best"), by_name(sets, "worst")
    assert not (best.members & worst.members).any()
    for one in [best, worst, *by_name(sets, "random")]:
        assert one.members.sum() == half
        assert not (one.members & ~chosen).any()
    assert len(by_name(sets, "random")) == n
    again = feature_sets(dictionary, chosen, ["norm"], tables, n, seed)
    assert [members(one) for one in again] == [members(one) for one in sets]


def test_candidates_fire_and_are_of_the_groups_and_tags_named(dictionary):
    fires = FIRES.copy()
    fires[[1, 4]] = 0
    config = AnalyzeConfig(norm_exclusive=0.85, norm_shared=0.6)

    def found(*among):
        return np.flatnonzero(candidates(dictionary, fires, among, config)).tolist()

    assert found() == [0, 2, 3, 5, 6, 7, 8, 9, 10, 11]
    assert found("b") == [10, 11]
    assert found("b_only") == [2, 10, 11]
    assert found("a", "b") == [0, 10, 11]
    with pytest.raises(
        ConfigError,
        match=r"--among c: there are features of a, shared, b, a_only, b_only, other$",
    ):
        found("c")
    with pytest.raises(ConfigError, match=r"1 features of a fire on the store, which is too few"):
        found("a")


def test_random_halves_are_one_bar_from_the_lowest_to_the_highest():
    sets = ["none", "random", "random", "best", "target"]
    table = pl.DataFrame(
        {
            "set": sets,
            "ranking": [None, "draw 1", "draw 2", "q", None],
            "features": [0, 6, 6, 6, 0],
            "kl": [3.0, 1.0, 2.0, 0.5, 0.0],
        }
    )
    shown = [(bar.name, bar.kl, bar.low, bar.high) for bar in bars(table)]
    assert shown == [
        ("none", 3.0, 3.0, 3.0),
        ("random half (6)", 1.5, 1.0, 2.0),
        ("best half by q (6)", 0.5, 0.5, 0.5),
    ]
