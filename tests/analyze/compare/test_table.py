"""A comparison of which every number is known, as tables and pictures."""

import numpy as np
import polars as pl
import pytest

from analyze.compare.matches import Matches
from analyze.compare.plots import compare_figure, compare_png
from analyze.compare.sides import Side
from analyze.compare.table import Comparison, compare_table, replication
from analyze.config import AnalyzeConfig

NAN = np.nan


def side(name, called, fires=None) -> Side:
    count = len(called)
    fires = np.full(count, 20) if fires is None else np.array(fires)
    verdict = [None] * count
    return Side(
        name, ("a", "b"), ["all"] * count, called, verdict, called, np.full(count, 0.5), fires
    )


def matches(feature, cosine, correlation, mutual) -> Matches:
    return Matches(
        np.array(feature), np.array(cosine), np.array(correlation), np.array(mutual, dtype=bool)
    )


@pytest.fixture
def comparison() -> Comparison:
    first = side("one", ["a_only", "a_only", "a_only", "b_only", "shared", "other", "rare"])
    other = side("two", ["a_only", "shared", "shared", "other", "b_only"], [20, 20, 20, 20, 0])
    direction = (
        #        again        shared       too far      other      again      again       none
        matches(
            [0, 1, 0, 3, 2, 0, -1],
            [0.9, 0.8, 0.4, 0.7, 0.75, 0.9, NAN],
            [0.5, 0.1, 0.2, 0.3, 0.9, 0.1, NAN],
            [1, 1, 0, 1, 1, 0, 0],
        ),
        matches([0, 1, 4, 3, -1], [0.9, 0.8, 0.75, 0.7, NAN], [0.5, 0.1, 0.9, 0.3, NAN], [1] * 5),
    )
    nothing = matches([-1] * 7, [NAN] * 7, [NAN] * 7, [0] * 7)
    activity = (nothing, matches([-1] * 5, [NAN] * 5, [NAN] * 5, [0] * 5))
    return Comparison(first, other, direction, activity, AnalyzeConfig(match_cosine=0.7))


def lines(comparison, **wanted) -> list[dict]:
    found = replication(comparison).to_dicts()
    return [line for line in found if all(line[key] == value for key, value in wanted.items())]


def test_findings_that_are_called_the_same_again_are_counted(comparison):
    a, b, shared = lines(comparison, by="direction", dictionary="one")
    assert [line["called"] for line in (a, b, shared)] == ["a_only", "b_only", "shared"]
    assert [line["features"] for line in (a, b, shared)] == [3, 1, 1]
    assert [line["replicated"] for line in (a, b, shared)] == [1, 0, 1]
    assert a["share"] == pytest.approx(1 / 3)
    assert a["mutual"] == 1
    assert a["median"] == pytest.approx(0.8)
    assert (a["to_a_only"], a["to_shared"], a["to_nothing"]) == (1, 1, 1)
    assert b["to_other"] == 1
    # The other dictionary's four features that fire: one a_only, two shared, one other.
    # Two of three a_only, all others have a counterpart.
    assert [line["chance"] for line in (a, b, shared)] == pytest.approx([2 / 3 * 0.25, 0, 0.5])


def test_the_reverse_is_counted_by_the_other_dictionarys_calls(comparison):
    a, b, shared = lines(comparison, by="direction", dictionary="two")
    assert (a["features"], a["replicated"], a["share"]) == (1, 1, 1)
    assert (b["features"], b["replicated"], b["to_nothing"]) == (1, 0, 1)
    assert (shared["features"], shared["replicated"], shared["to_a_only"]) == (2, 1, 1)


def test_without_matches_nothing_replicates_and_there_is_no_median(comparison):
    for line in lines(comparison, by="activity", dictionary="one"):
        assert line["replicated"] == 0
        assert line["to_nothing"] == line["features"]
        assert line["median"] is None
        assert line["chance"] == 0


def test_counts_of_counterparts_add_up_to_the_findings(comparison):
    for line in replication(comparison).to_dicts():
        met = sum(value for key, value in line.items() if key.startswith("to_"))
        assert met == line["features"]


def test_the_table_has_a_line_per_feature_with_the_calls_of_both(comparison):
    table = compare_table(comparison)
    assert table["other_feature"].to_list() == [0, 1, 0, 3, 2, 0, None]
    assert table["other_called"].to_list() == [
        *("a_only", "shared", "a_only", "other", "shared", "a_only", None)
    ]
    assert table["matched"].to_list() == [
        *("a_only", "shared", "nothing", "other", "shared", "a_only", "nothing")
    ]
    assert table["replicates"].to_list() == [True, False, False, False, True, None, None]
    assert table["other_cosine"].null_count() == 1
    assert table["active_feature"].null_count() == 7
    assert table["active_replicates"].to_list() == [False] * 5 + [None] * 2
    assert set(table["other"]) == {"two"}


def test_mean_max_cosine_is_over_features_with_a_match(comparison):
    assert comparison.mmcs[0] == pytest.approx(np.mean([0.9, 0.8, 0.4, 0.7, 0.75, 0.9]))
    assert comparison.mmcs[1] == pytest.approx(np.mean([0.9, 0.8, 0.75, 0.7]))


def test_pictures_have_the_findings_and_what_became_of_them(comparison, tmp_path):
    table = compare_table(comparison)
    compare_png(comparison, table, tmp_path / "compare.png")
    assert (tmp_path / "compare.png").read_bytes()[:4] == b"\x89PNG"
    figure = compare_figure(comparison, table)
    points = {trace.name: trace for trace in figure.data if trace.type == "scatter"}
    assert list(points["a_only"].text) == [
        "0 (a_only) → 0 (a_only)",
        "1 (a_only) → 1 (shared)",
        "2 (a_only) → 0 (a_only)",
    ]
    bars = [trace for trace in figure.data if trace.type == "bar"][:6]
    totals = np.sum([bar.x for bar in bars], axis=0)
    np.testing.assert_allclose(totals, 1.0)
    assert list(bars[0].y) == ["a_only (3)", "b_only (1)", "shared (1)"]


def test_many_shared_features_are_thinned_out_in_the_picture(comparison, monkeypatch):
    monkeypatch.setattr("analyze.compare.plots.MOST_POINTS", 2)
    figure = compare_figure(comparison, compare_table(comparison))
    points = {trace.name: trace for trace in figure.data if trace.type == "scatter"}
    assert len(points["a_only"].x) == 2


def test_findings_of_which_there_are_none_are_drawn_as_nothing(comparison):
    emptied = Comparison(
        side("one", ["rare"] * 7),
        comparison.other,
        comparison.direction,
        comparison.activity,
        comparison.config,
    )
    table = compare_table(emptied)
    assert isinstance(table, pl.DataFrame)
    bars = [trace for trace in compare_figure(emptied, table).data if trace.type == "bar"]
    assert all(list(bar.x) == [0, 0, 0] for bar in bars)
    assert all(line["share"] is None for line in lines(emptied, dictionary="one"))
