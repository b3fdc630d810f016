"""Steering as evidence: steering the called features alone gives what steering all would."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from analyze.config import AnalyzeConfig
from analyze.verdict.evidence import BESIDE, EVIDENCE, STEERING
from analyze.verdict.judge import EXCLUSIVE, LEVELS, called, judge
from analyze.verdict.nulls import null_lines, shared_null
from analyze.verdict.steering import shared_sample, steering_summary, with_steering
from pipeline.errors import ConfigError

CONFIG = AnalyzeConfig(
    evidence=["readout_ratio", STEERING], nulls=["shared"], fdr=0.1, steered_shared=40
)


def made_up(seed: int, candidates: int = 60, shared: int = 200):
    """A table of evidence, and the agreement of every feature."""
    generator = np.random.default_rng(seed)
    count = candidates + shared
    is_shared = np.arange(count) >= candidates
    ratio = np.where(is_shared, generator.normal(1, 0.1, count), generator.beta(1, 3, count))
    table = pl.DataFrame(
        {
            "feature": np.arange(count),
            "claimed_for": generator.choice(["a", "b"], count),
            "group": "x",
            "relative_decoder_norm": 0.5,
            "fires": generator.integers(20, 5000, count),
            "candidate": ~is_shared,
            "shared": is_shared,
            **{name: generator.uniform(0, 1, count) for name in (*EVIDENCE, *BESIDE)},
        }
    ).with_columns(pl.Series("readout_ratio", ratio), pl.lit(None, pl.Float64).alias(STEERING))
    centre = np.where(is_shared, 0.5, generator.choice([0.0, 0.5], count))
    agreement = generator.normal(centre, 0.15)
    return table, pl.DataFrame({"feature": np.arange(count), STEERING: agreement})


def steering(agreements: pl.DataFrame, asked: list):
    def steer(features):
        asked.append(list(features))
        return agreements.filter(pl.col("feature").is_in(list(features)))

    return steer


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000))
def test_to_steer_the_called_alone_changes_no_finding(seed):
    table, agreements = made_up(seed)
    nulls = {"shared": shared_null(table, ("a", "b"))}
    asked = []
    found = with_steering(table, nulls, CONFIG, steering(agreements, asked))
    if found is None:
        assert not asked
        return
    evidence, null = found
    some = judge(evidence, {**nulls, "steered": null}, CONFIG)
    everywhere = table.drop(STEERING).join(agreements, on="feature")
    all_of_them = judge(everywhere, {**nulls, "steered": null}, CONFIG)
    for level in LEVELS:
        mine, full = (
            called(one, level, CONFIG).sort("feature").select("feature", "q")
            for one in (some, all_of_them)
        )
        assert mine.equals(full)
    before = judge(table, nulls, AnalyzeConfig(fdr=0.1, nulls=["shared"]))
    assert set(called(some, 0.2, CONFIG)["feature"]) <= set(called(before, 0.2, CONFIG)["feature"])


def test_steering_refutes_what_the_other_model_uses_alike():
    table, agreements = made_up(3, shared=900)
    config = CONFIG.model_copy(update={"steered_shared": 400, "fdr": 0.2})
    nulls = {"shared": shared_null(table, ("a", "b"))}
    evidence, null = with_steering(table, nulls, config, steering(agreements, []))
    judged = judge(evidence, {**nulls, "steered": null}, config)
    by_reading = judge(table, nulls, AnalyzeConfig(fdr=0.2, nulls=["shared"]))
    before = set(by_reading.filter(pl.col("verdict") == EXCLUSIVE)["feature"])
    after = judged.filter(pl.col("verdict") == EXCLUSIVE)
    assert 3 <= after.height < len(before)
    assert after[STEERING].max() < 0.35
    refuted = judged.filter(
        pl.col("feature").is_in(list(before)) & (pl.col("verdict") != EXCLUSIVE)
    )
    assert refuted["reason"].str.contains("agreement of steering").all()
    lines = steering_summary(judged, null)
    assert [line["model"] for line in lines] == ["a", "b"]
    for line in lines:
        of = pl.col("claimed_for") == line["model"]
        own = judged.filter(of & pl.col(STEERING).is_not_null()).select("fires", STEERING).rows()
        shared = null.filter(of).select("fires", STEERING).rows()
        pairs = []
        for fires, value in own:
            near = sorted(shared, key=lambda one: abs(np.log(one[0]) - np.log(fires)))[:16]
            pairs += [float(value < other) for _, other in near]
        assert line["lower"] == pytest.approx(np.mean(pairs), abs=0.01)  # of ties either may count
        assert line["steered"] == len(own) > 3


def test_the_shared_sample_is_of_both_models_and_the_same_again():
    table, _ = made_up(0)
    chosen = shared_sample(table, 40)
    assert chosen == shared_sample(table, 40)
    assert set(shared_sample(table, 15)) < set(chosen)
    of = table.filter(pl.col("feature").is_in(chosen))
    assert of["shared"].all()
    assert sorted(of["claimed_for"].value_counts()["count"]) == [40, 40]


def test_all_evidence_with_a_null_has_p_values_and_the_named_decides():
    table, _ = made_up(1)
    null = null_lines(
        table.filter("shared"), {n: pl.col(n) for n in ("readout_ratio", "mapped_norm")}
    )
    both = pl.concat([null.with_columns(claimed_for=pl.lit(model)) for model in "ab"])
    config = AnalyzeConfig(evidence=["mapped_norm"])
    judged = judge(table, {"shared": both}, config)
    assert judged["p"].equals(judged["p_mapped_norm"].rename("p"))
    assert judged["p_readout_ratio"].null_count() == 0
    for name in ("direction", "other_norm_share", STEERING):
        assert judged[f"p_{name}"].null_count() == judged.height
    with pytest.raises(ConfigError, match="direction has no null"):
        judge(table, {"shared": both}, AnalyzeConfig(evidence=["direction"]))


def test_steering_alone_cannot_decide():
    with pytest.raises(ValidationError, match="steering_agreement alone cannot decide"):
        AnalyzeConfig(evidence=[STEERING])
