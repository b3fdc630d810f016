"""Which features of a null say what."""

import numpy as np
import polars as pl
import pytest

from analyze.verdict.evidence import EVIDENCE
from analyze.verdict.judge import judge
from analyze.verdict.nulls import copy_null, shared_null
from analyze.verdict.steering import STEERING

from .test_steering import AnalyzeConfig, made_up

LINES = pl.DataFrame(
    {
        "claimed_for": ["a", "b", "a", "b"],
        "fires": [10, 20, 30, 0],
        "candidate": [True, False, False, True],
        "shared": [False, True, True, False],
        "readout_ratio": [0.5, 2.0, 0.8, 0.1],
        "direction": [0.1, 0.2, 0.3, 0.4],
        "mapped_norm": [0.6, 0.7, 0.8, 0.9],
        "other_norm_share": [0.2, 0.45, 0.5, 0.1],
        STEERING: pl.Series([None] * 4, dtype=pl.Float64),
    }
)


def test_a_copy_tells_of_readouts_by_all_and_of_norms_by_candidates():
    found = copy_null([LINES], ("a", "b"))
    assert found.columns == ["fires", *EVIDENCE, "claimed_for"]
    for model in ("a", "b"):
        rows = found.filter(pl.col("claimed_for") == model).drop("claimed_for").rows()
        assert rows == [
            (10, 0.5, 0.1, 0.6, 0.2, None),
            (20, 0.5, None, 0.7, None, None),  # of two that read it the worse
            (30, 0.8, None, 0.8, None, None),
        ]


def test_of_several_pairs_a_copy_tells_nothing_of_what_is_found_pair_by_pair():
    found = copy_null([LINES], ("a", "b"), pairs=2).filter(pl.col("claimed_for") == "a")
    assert found.select("readout_ratio", "other_norm_share").rows() == [
        (0.5, 0.2),
        (0.5, None),
        (0.8, None),
    ]
    assert found.select("direction", "mapped_norm", STEERING).null_count().row(0) == (3, 3, 3)


def test_shared_features_are_read_from_either_model_and_mapped_from_their_own():
    found = shared_null(LINES, ("a", "b"))
    rows = found.select("claimed_for", "fires", *EVIDENCE).rows()
    assert rows == [
        ("a", 20, 0.5, None, None, None, None),
        ("a", 30, 0.8, None, 0.8, None, None),
        ("b", 20, 2.0, None, 0.7, None, None),
        ("b", 30, 1.25, None, None, None, None),
    ]


def test_norms_that_are_as_the_copys_candidates_call_nothing():
    """Candidates are chosen by their norms, in the dictionary and in the null alike."""
    generator = np.random.default_rng(0)
    table, _ = made_up(0, candidates=80)
    shares = pl.Series("other_norm_share", generator.uniform(0, 0.5, table.height))
    table = table.with_columns(shares, candidate=shares < 0.2, shared=shares > 0.4)
    null = table.with_columns(
        pl.Series("other_norm_share", generator.uniform(0, 0.5, table.height))
    ).with_columns(candidate=pl.col("other_norm_share") < 0.2)
    config = AnalyzeConfig(evidence=["other_norm_share"], fdr=0.2, counterpart=1.0)
    judged = judge(table, {"copy": copy_null([null], ("a", "b"))}, config)
    assert judged.height > 50
    assert (judged["q"] <= 0.2).sum() < 0.2 * judged.height


def test_a_null_of_one_model_leaves_the_others_p_values_to_the_rest():
    table, _ = made_up(2)
    both = copy_null([table.with_columns(candidate=True)], ("a", "b"))
    only_a = shared_null(table, ("a", "b")).with_columns(
        pl.when(pl.col("claimed_for") == "a").then("mapped_norm").alias("mapped_norm")
    )
    config = AnalyzeConfig(evidence=["mapped_norm"])
    alone = judge(table, {"copy": both}, config).sort("feature")
    beside = judge(table, {"copy": both, "shared": only_a}, config).sort("feature")
    of_b = pl.col("claimed_for") == "b"
    assert beside.filter(of_b)["p"].to_list() == pytest.approx(alone.filter(of_b)["p"].to_list())
    reasons = judge(table, {"shared": only_a}, config).filter(of_b & pl.col("p").is_not_null())
    assert not reasons.is_empty()
    told = reasons["reason"].str.contains("without a null for b|has a counterpart")
    assert told.all()
