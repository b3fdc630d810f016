from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from analyze.analysis import analyze
from analyze.config import AnalyzeConfig
from analyze.norms import BINS, bin_counts, group_summary, relative_decoder_norm
from analyze.plots import histogram_figure, histogram_png
from analyze.statistics.firing import Firing
from analyze.statistics.reconstruction import Reconstruction
from analyze.subject import Subject, check_fit, open_subject
from analyze.summary import summarize
from analyze.sweep.gather import gather
from analyze.tables import Tables
from pipeline.errors import ConfigError, DictionaryError
from train.dictionary.artifact import load_dictionary, save_dictionary
from train.dictionary.crosscoder import Crosscoder, HookpointShape
from train.dictionary.partition import single_group

CONFIG = AnalyzeConfig(batch_rows=32, contexts=3, min_fires=1, planted={"a": "german", "b": "code"})


@pytest.fixture(scope="module")
def analysis(known_store, dfc_folder):
    return analyze(open_subject(known_store, dfc_folder), CONFIG)


def _reconstruction(store, dictionary, fraction):
    description = {"train": {"validation_fraction": fraction}}
    subject = Subject(store, dictionary, Path("nowhere"), description)
    result = Reconstruction(subject)
    gather(subject, [result], CONFIG.batch_rows)
    return result


def _words(store):
    """(word, label) of every row, read from the documents' texts."""
    out = []
    for document in range(len(store.documents)):
        label = store.documents.label_names[store.documents.labels[document]]
        out += [(word, label) for word in store.documents.text(document).split(" ")]
    return out


def test_firing_counts_per_label_are_those_of_the_words(known_store, analysis):
    words = _words(known_store)
    for label in known_store.documents.label_names:
        number = known_store.documents.label_names.index(label)
        only_a = sum(word == "only_a" and where == label for word, where in words)
        assert analysis.firing.fires[0, number] == only_a
    only_b = sum(word == "only_b" or word.startswith("<script") for word, _ in words)
    assert analysis.table["fires"][5] == only_b
    assert analysis.table["density"][5] == pytest.approx(only_b / known_store.rows)


def test_every_row_is_swept_whatever_the_batch(known_store, dfc_folder, analysis):
    subject = open_subject(known_store, dfc_folder)
    small, large = (Firing(7, subject.labels) for _ in range(2))
    gather(subject, [small], 32)
    gather(subject, [large], 999)
    np.testing.assert_array_equal(small.fires, large.fires)
    assert small.rows.sum() == known_store.rows == analysis.firing.rows.sum()


def test_an_exact_dictionary_explains_all_variance(analysis):
    assert analysis.fve["a"] == pytest.approx(1.0, abs=1e-5)
    assert analysis.fve["b"] == pytest.approx(1.0, abs=1e-5)
    assert analysis.l0 == 1.0


def test_fve_is_that_of_held_out_rows_computed_directly(known_store, dfc_folder):
    dictionary = load_dictionary(dfc_folder)
    dictionary.W_dec["0"].data *= 0.7
    result = _reconstruction(known_store, dictionary, 0.25)
    held_out = known_store.documents.validation_mask(0.25)[known_store.column("document")]
    name = dictionary.hookpoints[0].name
    x = np.concatenate(
        [
            known_store.activations(name, chunk).double().numpy()
            for chunk in range(known_store.chunks)
        ]
    )[held_out]
    x_hat = 0.7 * x
    expected = 1 - ((x - x_hat) ** 2).sum() / ((x - x.mean(0)) ** 2).sum()
    assert result.fve()[name] == pytest.approx(expected, rel=1e-4)
    assert result.rows() == held_out.sum() > 0


def test_norms_are_in_scaled_units_and_relative_norm_tells_the_models_apart(analysis):
    table = analysis.table
    assert table["decoder_norm_a"].to_list() == pytest.approx([2, 2, 2, 2, 2, 0, 0])
    assert table["decoder_norm_b"].to_list() == pytest.approx([0, 0, 0.5, 0.5, 0.5, 0.5, 0.5])
    assert table["relative_decoder_norm"].to_list() == pytest.approx([1, 1, 0.8, 0.8, 0.8, 0, 0])
    assert table["group"].to_list() == ["a", "a", "shared", "shared", "shared", "b", "b"]


def test_relative_norm_of_a_feature_without_norms_is_unknown():
    r = relative_decoder_norm(np.array([0.0, 1.0]), np.array([0.0, 3.0]))
    assert np.isnan(r[0])
    assert r[1] == 0.25


def test_groups_count_alive_and_dead(analysis):
    summary = {row["group"]: row for row in group_summary(analysis.table).to_dicts()}
    assert (summary["a"]["alive"], summary["a"]["dead"]) == (1, 1)
    assert (summary["shared"]["alive"], summary["shared"]["dead"]) == (2, 1)
    assert analysis.dead_fraction == {"a": pytest.approx(2 / 5), "b": pytest.approx(2 / 5)}


def test_bins_hold_every_alive_feature_once(analysis):
    assert sum(bin_counts(analysis.table).values()) == 4
    assert len(bin_counts(analysis.table)) == len(BINS)


def test_claims_rank_exclusive_features_by_summed_activation(analysis):
    assert {claim.model: claim.features for claim in analysis.claims} == {"a": [0], "b": [5]}


def test_claims_of_a_plain_crosscoder_are_its_most_extreme_norms(known_store, crosscoder_folder):
    claims = analyze(open_subject(known_store, crosscoder_folder), CONFIG).claims
    assert claims[0].features[0] == 0
    assert claims[1].features[0] == 5


def test_planted_table_counts_features_that_fire_on_their_models_domain(analysis):
    assert [(c.model, c.fires_there, c.of) for c in analysis.planted] == [("a", 1, 1), ("b", 1, 1)]


def test_planted_table_does_not_count_features_that_fire_elsewhere(known_store, dfc_folder):
    swapped = CONFIG.model_copy(update={"planted": {"a": "code", "b": "german"}})
    counts = analyze(open_subject(known_store, dfc_folder), swapped).planted
    assert [(c.fires_there, c.of) for c in counts] == [(0, 1), (0, 1)]


def test_planted_label_that_no_document_has_is_named(known_store, dfc_folder):
    config = CONFIG.model_copy(update={"planted": {"a": "french"}})
    with pytest.raises(ConfigError, match=r"analyze.planted.a.*'french'.*prose, german, code"):
        analyze(open_subject(known_store, dfc_folder), config)


def test_dictionary_of_another_store_is_refused(known_store):
    other = Crosscoder((HookpointShape("a.mid.out", "a", 9),), single_group(("a",), 4))
    with pytest.raises(DictionaryError, match="width 6, the dictionary 9"):
        check_fit(known_store, other)


def test_summary_names_planted_counts_of_both_dictionaries(
    known_store, analysis, crosscoder_folder, tmp_path
):
    baseline = analyze(open_subject(known_store, crosscoder_folder), CONFIG)
    tables = Tables(tmp_path, analysis.subject.fingerprint)
    summary = summarize(analysis, [baseline], tables, CONFIG)
    assert set(summary["planted"]) == {"a", "b", "crosscoder_a", "crosscoder_b"}
    assert summary["paired_fraction"] == {"a": 0.8, "b": 1.0}
    assert summary["baselines"]["dictionary-batch_topk_crosscoder"]["fve"]["a"] == pytest.approx(
        1, abs=1e-5
    )


def test_summary_counts_what_the_verdict_calls_and_where_it_fires(analysis, tmp_path):
    tables = Tables(tmp_path, analysis.subject.fingerprint)
    judged = pl.DataFrame(
        {
            "feature": [0, 1, 5],
            "claimed_for": ["a", "a", "b"],
            "q": [0.01, 0.5, 0.2],
            "verdict": ["exclusive", "not shown", "not shown"],
            "fdr": [0.02, 0.02, 0.02],
        }
    )
    assert summarize(analysis, [], tables, CONFIG)["exclusive"] is None
    tables.write("exclusivity", judged)
    assert summarize(analysis, [], tables, CONFIG)["exclusive"] == {
        "fdr": 0.02,
        "caution": None,
        "models": [
            {"model": "a", "candidates": 2, "exclusive": 1, "on_own_domain": 1},
            {"model": "b", "candidates": 1, "exclusive": 0, "on_own_domain": 0},
        ],
    }


def test_table_is_the_same_in_parquet_and_csv(known_store, analysis, tmp_path):
    tables = Tables(tmp_path, analysis.subject.fingerprint)
    png = partial(histogram_png, analysis.table, analysis.models)
    figure = histogram_figure(analysis.table, analysis.models)
    files = {file.name: file for file in tables.write("norms", analysis.table, png, figure)}
    assert pl.read_parquet(files["norms.parquet"]).equals(analysis.table)
    assert pl.read_csv(files["norms.csv"]).shape == analysis.table.shape
    assert files["norms.png"].read_bytes().startswith(b"\x89PNG")
    assert "plotly" in files["norms.html"].read_text().lower()


def test_features_that_hardly_fire_are_not_claimed(known_store, dfc_folder, analysis):
    fires = analysis.table["fires"]
    config = CONFIG.model_copy(update={"min_fires": fires[0] + 1})
    claims = analyze(open_subject(known_store, dfc_folder), config).claims
    assert [claim.features for claim in claims] == [[], [5] if fires[5] > fires[0] else []]


def test_no_feature_is_claimed_for_both_models(known_store, crosscoder_folder):
    first, second = analyze(open_subject(known_store, crosscoder_folder), CONFIG).claims
    assert not set(first.features) & set(second.features)
    assert min(first.relative_norms) > 0.5 > max(second.relative_norms)


def test_without_held_out_rows_fve_is_unknown_and_not_zero(known_store, dfc_folder):
    result = _reconstruction(known_store, load_dictionary(dfc_folder), 0.0)
    assert set(result.fve().values()) == {None}
    assert result.l0() is None


def test_planted_model_that_is_not_compared_is_named(known_store, dfc_folder):
    config = CONFIG.model_copy(update={"planted": {"c": "code"}})
    with pytest.raises(ConfigError, match="unknown model 'c'; the models are a, b"):
        analyze(open_subject(known_store, dfc_folder), config)


@pytest.mark.parametrize("origin", ["store", "live"])
def test_dictionary_trained_on_other_weights_is_refused(origin, known_store, dfc_folder, tmp_path):
    provenance = {"recipe": "dfc", origin: {"fingerprints": {"models.a": "other", "corpus": "x"}}}
    save_dictionary(tmp_path, load_dictionary(dfc_folder), provenance)
    with pytest.raises(DictionaryError, match=r"trained on another model a \(other\)"):
        open_subject(known_store, tmp_path)
