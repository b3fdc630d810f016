"""What the page knows of features, from tables that may lack columns."""

import json

import pytest

from analyze.page.choose import chosen
from analyze.page.features import Features
from analyze.page.lines import Lines

from .conftest import CONFIG


def _read(maker, shown=(5,), config=CONFIG, **tables):
    made = maker.tables(**tables)
    features = Features(maker.analysis, made, config, list(shown)).read()
    return [(feature.line, json.loads(feature.detail)) for feature in features]


def test_claims_come_first_then_groups_then_extreme_norms_then_the_dead(maker):
    assert chosen(maker.analysis, None, 10) == [5, 0, 2, 3, 1, 6, 4]
    assert chosen(maker.analysis, None, 3) == [5, 0, 2]


def test_found_features_come_before_claims_by_q_the_second_models_first(maker, judged_tables):
    lines = [*judged_tables["exclusivity"]]
    lines += [
        {**lines[0], "feature": f, "claimed_for": "b", "q": q} for f, q in ((2, 0.04), (3, 0.001))
    ]
    verdicts = maker.tables(exclusivity=lines).read("exclusivity")
    assert chosen(maker.analysis, verdicts, 10) == [3, 5, 2, 0, 1, 6, 4]


def test_a_line_holds_what_the_analysis_knows(maker):
    ((line, detail),) = _read(maker)
    table = maker.analysis.table.row(5, named=True)
    assert (line.number, line.model, line.group, line.verdict) == (5, "b", "b", "claim")
    assert line.r == 0.0
    assert line.density == pytest.approx(table["density"], rel=1e-3)
    assert detail["fires"] == table["fires"]
    assert detail["shares"] == [0.0, 0.0, 1.0]
    assert (detail["own_label"], detail["own_ratio"]) == ("code", -1.0)


def test_without_contexts_those_of_claims_are_read_from_the_store(maker):
    (_, claimed), (_, other) = _read(maker, (5, 2))
    assert len(claimed["bands"][0]["contexts"]) == CONFIG.contexts
    assert other["bands"] == []


def test_evidence_comes_with_its_p_value_and_what_chance_gives(maker, judged_tables):
    scaling = [{"feature": 5, "direction": 0.3, "null_direction": 0.1, "specific": True}]
    ((_, detail),) = _read(maker, **judged_tables, scaling=scaling)
    facts = {
        (one["source"], fact["name"]): fact for one in detail["evidence"] for fact in one["facts"]
    }
    assert facts["verdict", "readout_ratio"]["p"] == 0.01
    assert facts["latent scaling", "direction"]["null"] == 0.1
    assert facts["latent scaling", "specific"]["value"] is True
    assert ("latent scaling", "null_direction") not in facts
    assert ("verdict", "p") not in facts
    assert ("norms", "decoder_norm_b") in facts


def test_of_several_hookpoints_the_most_that_the_other_model_has_counts(maker):
    transfer = [{"feature": 5, "readout_ratio": value} for value in (0.2, 0.7, None)]
    ((line, _),) = _read(maker, transfer=transfer)
    assert line.ratio == 0.7


def test_promoted_tokens_of_the_claimed_model_stand_in_the_line_by_rank(maker):
    tokens = [
        {
            "feature": 5,
            "model": model,
            "promoted": promoted,
            "rank": rank,
            "token": f"{model}{rank}{promoted}",
            "logit": 1.0,
        }
        for model in ("a", "b")
        for promoted in (False, True)
        for rank in (1, 0)
    ]
    ((line, detail),) = _read(maker, tokens=tokens)
    assert line.tokens == ["b0True", "b1True"]
    assert [found["model"] for found in detail["tokens"]] == ["a", "b"]
    assert [token["text"] for token in detail["tokens"][0]["suppressed"]] == ["a0False", "a1False"]


def test_a_mirror_is_told_on_both_of_its_sides(maker):
    mirrors = [{"feature_a": 0, "feature_b": 5, "jaccard": 0.5}]
    (_, first), (_, second) = _read(maker, (0, 5), mirrors=mirrors)
    assert first["mirrors"][0]["feature"] == 5
    assert second["mirrors"][0] == {"feature": 0, "model": "", "likeness": {"jaccard": 0.5}}


def test_steering_has_a_curve_per_model_and_direction_by_alpha(maker):
    steer = [
        {"feature": 5, "steered": model, "mapped": mapped, "alpha": alpha, "kl_firing": alpha**2}
        for model, mapped in (("b", False), ("a", True))
        for alpha in (1.0, -1.0, 0.0)
    ]
    moved = [
        {
            "feature": 5,
            "steered": "b",
            "mapped": False,
            "alpha": alpha,
            "promoted": True,
            "rank": 0,
            "token": f"at {alpha}",
        }
        for alpha in (4.0, 1.0)
    ]
    texts = [
        {"feature": 5, "steered": "b", "alpha": alpha, "prompt": "Once", "text": f"{alpha}"}
        for alpha in (4.0, 0.0)
    ]
    ((_, detail),) = _read(maker, steer=steer, steer_tokens=moved, steer_texts=texts)
    first, second = detail["curves"]
    assert [point["alpha"] for point in first["points"]] == [-1, 0, 1]
    assert (first["model"], first["mapped"], second["model"], second["mapped"]) == (
        "b",
        False,
        "a",
        True,
    )
    assert first["moved"]["raised"] == ["at 1.0"]
    assert second["moved"] is None
    assert [sample["text"] for sample in detail["prompts"][0]["samples"]] == ["0.0", "4.0"]


def test_a_match_in_another_dictionary_loses_its_prefix(maker):
    compare = [
        {
            "feature": 5,
            "other": "seed-1",
            "other_feature": 9,
            "other_cosine": 0.9,
            "other_mutual": True,
        }
    ]
    ((_, detail),) = _read(maker, compare=compare)
    assert detail["compared"] == [
        {"feature": 9, "model": "seed-1", "likeness": {"cosine": 0.9, "mutual": True}}
    ]


@pytest.mark.parametrize(
    "table", ["contexts", "tokens", "neighbours", "steer", "steer_texts", "exclusivity"]
)
def test_a_table_of_nothing_but_features_does_no_harm(maker, table):
    ((line, _),) = _read(maker, **{table: [{"feature": 5}]})
    assert line.number == 5


def test_once_the_page_is_full_details_keep_two_contexts(maker, judged_tables, monkeypatch):
    monkeypatch.setattr("analyze.page.features.DETAIL_BYTES", 1)
    contexts = [{**judged_tables["contexts"][0], "feature": 5, "rank": rank} for rank in range(5)]
    (_, first), (_, second) = _read(maker, (2, 5), contexts=contexts)
    assert not first["shortened"]
    assert second["shortened"]
    assert len(second["bands"][0]["contexts"]) == 2


def test_lines_of_no_table_are_empty():
    assert Lines(None, [1]).of(1) == []
    assert Lines(None, [1]).first(1) == {}


def test_the_verdict_repeats_no_number_of_another_table_but_those_it_judges(maker, judged_tables):
    scaling = [{"feature": 5, "direction": 0.2}]
    transfer = [{"feature": 5, "readout_ratio": 0.55}]
    ((_, detail),) = _read(maker, **judged_tables, scaling=scaling, transfer=transfer)
    facts = [(one["source"], fact["name"]) for one in detail["evidence"] for fact in one["facts"]]
    assert ("verdict", "readout_ratio") in facts
    assert ("verdict", "direction") not in facts
    assert ("latent scaling", "direction") in facts


def test_steering_of_the_own_model_comes_first(maker):
    steer = [
        {"feature": 5, "claimed_for": "b", "steered": model, "mapped": mapped, "alpha": 1.0}
        for model, mapped in (("a", True), ("a", False), ("b", False))
    ]
    ((_, detail),) = _read(maker, steer=steer)
    found = [(curve["model"], curve["mapped"]) for curve in detail["curves"]]
    assert found == [("b", False), ("a", False), ("a", True)]
