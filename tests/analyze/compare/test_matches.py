"""Best matches beside a search through all pairs."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from analyze.compare.coactivation import Correlations
from analyze.compare.directions import Candidates, Nearest
from analyze.compare.matches import Pairs, match, mean_max_cosine, pairs_of

SIZES = (5, 4)
SCORE = st.sampled_from([np.nan, -0.5, 0.0, 0.25, 0.5, 0.75, 1.0])  # few, so that some are equal
PAIR = st.tuples(st.integers(0, SIZES[0] - 1), st.integers(0, SIZES[1] - 1))
SCORES = st.dictionaries(PAIR, st.tuples(SCORE, SCORE))
ALIVE = st.tuples(*(st.lists(st.booleans(), min_size=n, max_size=n) for n in SIZES))


def naive(scores, column, alive, side):
    """Per feature of a side its best (score, partner), by hand."""
    found = []
    for feature in range(SIZES[side]):
        best = None
        for pair, values in scores.items():
            if pair[side] != feature or np.isnan(values[column]):
                continue
            if not (alive[0][pair[0]] and alive[1][pair[1]]):
                continue
            partner = pair[1 - side]
            if best is None or (values[column], -partner) > (best[0], -best[1]):
                best = (values[column], partner)
        found.append(best)
    return found


@given(SCORES, ALIVE, st.sampled_from(["direction", "activity"]))
def test_matches_are_the_best_usable_pairs_of_either_side(scores, alive, by):
    column = 0 if by == "direction" else 1
    pairs = Pairs(
        np.array([pair[0] for pair in scores], dtype=int),
        np.array([pair[1] for pair in scores], dtype=int),
        np.array([value[0] for value in scores.values()], dtype=float),
        np.array([value[1] for value in scores.values()], dtype=float),
    )
    found = match(pairs, by, np.array(alive[0]), np.array(alive[1]))
    wanted = [naive(scores, column, alive, side) for side in (0, 1)]
    for side in (0, 1):
        one, own, facing = found[side], wanted[side], wanted[1 - side]
        assert one.feature.tolist() == [-1 if best is None else best[1] for best in own]
        score = (one.cosine, one.correlation)[column]
        assert score.tolist() == pytest.approx(
            [np.nan if best is None else best[0] for best in own], nan_ok=True
        )
        assert one.mutual.tolist() == [
            best is not None and facing[best[1]][1] == feature for feature, best in enumerate(own)
        ]
    known = [best[0] for best in wanted[0] if best is not None]
    if by == "direction":
        assert mean_max_cosine(found[0]) == (pytest.approx(np.mean(known)) if known else None)


def _candidates(features, cosines):
    return Candidates(torch.tensor(features), torch.tensor(cosines))


def test_pairs_come_from_both_sides_and_from_groups_apart():
    near = Nearest(
        _candidates([[1], [0], [-1]], [[0.9], [0.4], [np.nan]]),
        _candidates([[1], [0], [-1]], [[0.4], [0.9], [np.nan]]),
        [(slice(2, 3), slice(1, 3))],
    )
    found = Correlations(
        torch.tensor([[0.8], [0.3], [np.nan]]),
        torch.tensor([[0.3], [0.8], [np.nan]]),
        [torch.tensor([[0.1, 0.6]])],
    )
    pairs = pairs_of(near, found)
    everyone = np.ones(3, bool)
    by_direction, _ = match(pairs, "direction", everyone, everyone)
    assert by_direction.feature.tolist() == [1, 0, -1]
    by_activity, back = match(pairs, "activity", everyone, everyone)
    assert by_activity.feature.tolist() == [1, 0, 2]
    assert by_activity.correlation.tolist() == pytest.approx([0.8, 0.3, 0.6])
    assert np.isnan(by_activity.cosine[2])  # no hookpoint sees both
    assert back.feature.tolist() == [1, 0, 2]
    assert by_activity.mutual.all()


def test_groups_apart_in_which_nothing_fires_have_no_match():
    nothing = _candidates([[-1]], [[np.nan]])
    near = Nearest(nothing, nothing, [(slice(0, 1), slice(0, 1))])
    r = torch.tensor([[np.nan]])
    found, _ = match(pairs_of(near, Correlations(r, r, [r])), "activity", *([np.ones(1, bool)] * 2))
    assert found.feature.tolist() == [-1]
