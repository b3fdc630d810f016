"""Norms beside plain float64 sums over weights written out, in scaled and in raw units."""

import json

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from analyze.analysis import analyze
from analyze.config import AnalyzeConfig
from analyze.norms import (
    decoder_cosine,
    encoder_norms,
    model_norms,
    norm_difference,
    raw_model_norms,
    relative_decoder_norm,
    tags,
)
from analyze.norms_cli import norms
from analyze.norms_table import norm_medians, norms_table, tag_counts
from analyze.plots import histogram_figure, tag_edges
from analyze.statistics.firing import Firing
from analyze.subject import Subject, open_subject
from pipeline.command import make_app
from pipeline.errors import ConfigError, DictionaryError
from train.dictionary.crosscoder import Crosscoder, HookpointShape
from train.dictionary.fold import fold
from train.dictionary.partition import dedicated, single_group

CONFIG = AnalyzeConfig()
NORM = st.floats(1e-3, 1e3)


def randomised(hookpoints, partition, seed=0) -> Crosscoder:
    dictionary = Crosscoder(hookpoints, partition)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in dictionary.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        dictionary.scale.copy_(0.2 + torch.rand(len(hookpoints), generator=generator))
    return dictionary


def pair(widths_a=(5, 4), widths_b=(5, 4), features=12) -> Crosscoder:
    shapes = [HookpointShape(f"a.{n}", "a", width) for n, width in enumerate(widths_a)]
    shapes += [HookpointShape(f"b.{n}", "b", width) for n, width in enumerate(widths_b)]
    return randomised(tuple(shapes), dedicated(("a", "b"), features, {"a": 3, "b": 2}))


def weights(dictionary, kind, feature) -> dict[str, list[tuple[float, list[float]]]]:
    """Per model, the (scale, weights) of a feature at each of its hookpoints that sees it."""
    found = {"a": [], "b": []}
    for n, hookpoint in enumerate(dictionary.hookpoints):
        local = int(dictionary.visibility(n).local_F[feature])
        if local >= 0:
            row = getattr(dictionary, kind)[str(n)][local].double().tolist()
            found[hookpoint.model].append((float(dictionary.scale[n].double()), row))
    return found


def length(parts, power=0) -> float:
    return sum((x * scale**power) ** 2 for scale, row in parts for x in row) ** 0.5


def test_norms_are_those_of_one_vector_over_a_models_hookpoints():
    dictionary = pair()
    scaled, raw = model_norms(dictionary), raw_model_norms(dictionary)
    encoder = encoder_norms(dictionary)
    for feature in range(12):
        decoders = weights(dictionary, "W_dec", feature)
        encoders = weights(dictionary, "W_enc", feature)
        for model in ("a", "b"):
            assert scaled[model][feature] == pytest.approx(length(decoders[model]), rel=1e-6)
            assert raw[model][feature] == pytest.approx(length(decoders[model], -1), rel=1e-6)
            assert encoder[model][feature] == pytest.approx(length(encoders[model]), rel=1e-6)


def test_folding_the_scale_into_the_weights_changes_no_norm():
    dictionary = pair()
    folded, _ = fold(dictionary)
    for norms_of in (model_norms, raw_model_norms, encoder_norms):
        for model, wanted in norms_of(dictionary).items():
            np.testing.assert_allclose(norms_of(folded)[model], wanted, rtol=1e-5)
    pairs = [(0, 2), (1, 3)]
    wanted = decoder_cosine(dictionary, pairs)
    np.testing.assert_allclose(decoder_cosine(folded, pairs), wanted, rtol=1e-4, atol=1e-6)


def test_the_cosine_is_over_the_paired_hookpoints_of_features_that_both_see():
    dictionary = pair()
    found = decoder_cosine(dictionary, [(0, 2), (1, 3)])
    for feature in range(12):
        decoders = weights(dictionary, "W_dec", feature)
        if not (decoders["a"] and decoders["b"]):
            assert np.isnan(found[feature])
            continue
        product = sum(
            x * y
            for (_, own), (_, other) in zip(decoders["a"], decoders["b"], strict=True)
            for x, y in zip(own, other, strict=True)
        )
        wanted = product / length(decoders["a"]) / length(decoders["b"])
        assert found[feature] == pytest.approx(wanted, rel=1e-6)
    assert np.isfinite(found).sum() == 7


def _table(dictionary, known_store) -> pl.DataFrame:
    labels = open_labels(known_store, dictionary)
    return norms_table(dictionary, Firing(dictionary.partition.features, labels), CONFIG)


def open_labels(store, dictionary):
    return Subject(store, dictionary, store.path).labels


def test_relative_norms_of_the_table_are_those_of_its_norms(known_store):
    table = _table(pair(), known_store)
    for line in table.to_dicts():
        for mark in ("decoder_norm", "decoder_norm_raw", "encoder_norm"):
            a, b = line[f"{mark}_a"], line[f"{mark}_b"]
            assert line[f"relative_{mark}"] == pytest.approx(a / (a + b))
    assert table["tag"].to_list()[:3] == ["a_only"] * 3
    assert table["tag"].to_list()[-2:] == ["b_only"] * 2
    assert table["decoder_cosine"].null_count() == 5


@pytest.mark.parametrize("widths_b", [(6, 4), (5,)])
def test_without_pairs_of_equal_width_there_is_no_cosine(known_store, widths_b):
    table = _table(pair(widths_b=widths_b), known_store)
    assert table["decoder_cosine"].null_count() == len(table)


def test_a_model_of_which_nothing_is_reconstructed_has_no_decoder_norms(known_store):
    shapes = (
        HookpointShape("a.in", "a", 4, writes=False),
        HookpointShape("b.out", "b", 4, reads=False),
    )
    table = _table(randomised(shapes, single_group(("a", "b"), 5)), known_store)
    assert table["decoder_norm_a"].null_count() == 5
    assert table["encoder_norm_b"].null_count() == 5
    assert table["decoder_norm_b"].null_count() == table["encoder_norm_a"].null_count() == 0
    assert table["relative_decoder_norm"].null_count() == 5
    assert table["tag"].to_list() == ["other"] * 5


@pytest.mark.parametrize("models", [("a",), ("a", "b", "c")])
def test_another_number_of_models_than_two_is_refused(known_store, models):
    shapes = tuple(HookpointShape(f"{model}.out", model, 4) for model in models)
    with pytest.raises(DictionaryError, match=f"this dictionary has {', '.join(models)}"):
        _table(randomised(shapes, single_group(models, 5)), known_store)


@given(NORM, NORM)
def test_the_older_form_runs_the_other_way_and_says_the_same(a, b):
    first, second = np.array([a]), np.array([b])
    relative, older = relative_decoder_norm(first, second), norm_difference(first, second)
    assert older == pytest.approx(0.5 * (1 + (b - a) / max(a, b)))
    ratio = 1 / (2 * older) if older < 0.5 else 2 * (1 - older)  # |d_A| / |d_B|
    assert relative == pytest.approx(ratio / (1 + ratio))


@given(st.floats(0, 1))
def test_tags_are_the_published_bins(relative):
    (tag,) = tags(np.array([relative]), ("a", "b"), 0.9, 0.6)
    wanted = "other"
    if relative > 0.9:
        wanted = "a_only"
    elif relative < 0.1:
        wanted = "b_only"
    elif 0.4 <= relative <= 0.6:
        wanted = "shared"
    assert tag == wanted


def test_a_feature_without_norms_is_tagged_other():
    assert tags(np.array([np.nan]), ("a", "b"), 0.9, 0.6) == ["other"]


def test_tags_are_counted_over_alive_features_of_each_group(known_store, dfc_folder):
    table = analyze(open_subject(known_store, dfc_folder), CONFIG).table
    lines = tag_counts(table, ("a", "b")).to_dicts()
    assert [list(line.values()) for line in lines] == [
        ["a", 1, 0, 0, 0],
        ["shared", 0, 0, 0, 2],  # their relative norm is 0.8
        ["b", 0, 0, 1, 0],
    ]
    assert norm_medians(table)["relative_decoder_norm"] == pytest.approx(0.8)


def test_a_tag_cannot_be_two_things():
    with pytest.raises(ValueError, match=r"norm_shared \(0.6\) is above norm_exclusive \(0.55\)"):
        AnalyzeConfig(norm_exclusive=0.55)


def test_the_picture_has_a_line_at_each_edge_of_the_tags(known_store, dfc_folder):
    table = analyze(open_subject(known_store, dfc_folder), CONFIG).table
    figure = histogram_figure(table, ("a", "b"), tag_edges(0.9, 0.6))
    assert [shape.x0 for shape in figure.layout.shapes] == pytest.approx([0.1, 0.4, 0.6, 0.9])


@pytest.fixture
def run(known_store, dfc_folder, tmp_path, monkeypatch):
    """`analyze norms` in this process; its exit code and output."""
    monkeypatch.chdir(tmp_path)
    app = make_app("test")
    app.command()(norms)
    paths = ["--store", str(known_store.path), "--dictionary", str(dfc_folder)]

    def call(*words):
        return CliRunner().invoke(app, [*paths, *words], catch_exceptions=False)

    return call


def test_the_command_writes_the_table_its_picture_and_json(run, tmp_path):
    value = json.loads(run("--out", "out", "--json").stdout)
    assert [line["a_only"] for line in value["tags"]] == [1, 0, 0]
    assert value["scales"] == {"a.mid.out": 2.0, "b.mid.out": 0.5}
    names = ["norms.parquet", "norms.csv", "norms.png", "norms.html"]
    assert value["files"] == [f"out/{name}" for name in names]
    written = pl.read_parquet(tmp_path / "out" / "norms.parquet")
    assert written["decoder_norm_raw_a"].to_list() == pytest.approx([1, 1, 1, 1, 1, 0, 0])
    assert written["decoder_norm_raw_b"].to_list() == pytest.approx([0, 0, 1, 1, 1, 1, 1])
    # What one word of a model adds up to: 1 / (2 models x scale), in scaled units as it is held.
    assert written["encoder_norm_a"].to_list()[:3] == pytest.approx([0.5, 0.5, 0.25])


def test_edges_of_the_tags_can_be_moved(run):
    done = run("--set", "analyze.norm_exclusive=0.75", "--set", "analyze.norm_shared=0.7", "--json")
    assert [line["a_only"] for line in json.loads(done.stdout)["tags"]] == [1, 2, 0]
    with pytest.raises(ConfigError, match=r"analyze: given .*norm_shared"):
        run("--set", "analyze.norm_shared=0.95")


def test_the_terminal_says_groups_tags_and_units(run):
    shown = run().stdout
    for word in ("features by partition group", "a_only", "b_only", "scaled = raw x scale"):
        assert word in shown


def test_help_has_formulas_and_their_sources(run):
    shown = " ".join(run("--help").stdout.split())
    for word in ("R = |d_A| / (|d_A| + |d_B|)", "2602.11729", "2504.02922", "0.5 (1 + (|d_B|"):
        assert word in shown
