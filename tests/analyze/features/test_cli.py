"""`analyze features` and `analyze feature`, as a user runs them on a harvested pair."""

import json

import numpy as np
import polars as pl
import pytest
import yaml
from typer.testing import CliRunner

from analyze.features.cli import features
from analyze.features.feature_cli import feature
from analyze.tables import Tables
from pipeline.command import make_app
from pipeline.errors import ConfigError

APP = make_app("The two commands alone.")
APP.command()(features)
APP.command()(feature)
WIDE = {"COLUMNS": "200"}


def run(*words):
    done = CliRunner(env=WIDE).invoke(APP, [str(word) for word in words])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


@pytest.fixture(scope="module")
def config_file(residual, tmp_path_factory):
    file = tmp_path_factory.mktemp("config") / "pipeline.yaml"
    file.write_text(yaml.safe_dump(residual[0].raw))
    return file


@pytest.fixture(scope="module")
def described(config_file, tmp_path_factory):
    """The folder with all tables, and what was printed."""
    out = tmp_path_factory.mktemp("described")
    done = run("features", "--config", config_file, "--out", out, "--json")
    return out, json.loads(done.stdout)


def test_tables_and_pictures_are_written_and_named(described, residual):
    out, printed = described
    names = {"features", "contexts", "tokens", "neighbours", "mirrors"}
    files = {f"{name}.{ending}" for name in names for ending in ("parquet", "csv")}
    assert {str(out / file) for file in (*files, "features.png", "features.html")} == set(
        printed["files"]
    )
    assert all((out / file).stat().st_size for file in files)
    assert printed["notes"] == []
    assert [group["features"] for group in printed["groups"]] == [5, 6]


def test_described_are_the_features_that_may_be_exclusive_the_strongest_first(described):
    out, _ = described
    table = pl.read_parquet(out / "features.parquet")
    assert sorted(table["feature"]) == [*range(5), *range(14, 20)]
    assert set(pl.read_parquet(out / "contexts.parquet")["feature"]) == set(table["feature"])


def test_columns_are_those_that_the_report_reads(described):
    out, _ = described
    columns = {
        "features": "feature group claimed_for density fires activation_q10 activation_q50 "
        "activation_q90 activation_q99 activation_max mirror mirror_jaccard",
        "contexts": "feature band rank document label row activation pieces strengths peak text",
        "tokens": "feature model promoted rank token logit",
        "neighbours": "feature model rank neighbour cosine",
        "mirrors": "feature_a feature_b fires_a fires_b both jaccard correlation",
    }
    for name, expected in columns.items():
        assert set(expected.split()) <= set(pl.read_parquet(out / f"{name}.parquet").columns)


def test_a_named_feature_is_described_too_and_the_most_are_a_setting(config_file, tmp_path):
    run(
        "features", "--config", config_file, "--out", tmp_path, "--feature", 9, "--no-lens",
        "--set", "analyze.report_features=3",
    )  # fmt: skip
    table = pl.read_parquet(tmp_path / "features.parquet")
    assert len(table) == 4
    assert table["feature"][-1] == 9
    assert not (tmp_path / "tokens.parquet").exists()


def test_all_are_described_where_that_is_asked_for(config_file, tmp_path):
    done = run("features", "--config", config_file, "--out", tmp_path, "--all", "--no-lens")
    table = pl.read_parquet(tmp_path / "features.parquet")
    assert sorted(table["feature"]) == list(range(20))
    assert "mirror pairs" in done.stdout
    assert f"next: analyze feature {table['feature'][0]} --config {config_file}" in done.stdout


def test_without_models_there_is_no_lens_and_a_note_of_it(residual, tmp_path):
    config, _ = residual
    file = tmp_path / "bare.yaml"
    file.write_text(yaml.safe_dump({"run_dir": config.raw["run_dir"]}))
    done = run("features", "--config", file, "--out", tmp_path, "--json")
    assert json.loads(done.stdout)["notes"] == ["no logit lens: the configuration has no models"]
    assert pl.read_parquet(tmp_path / "tokens.parquet").is_empty()


def test_one_feature_is_shown_with_all_that_is_known_of_it(described, config_file, residual):
    out, _ = described
    dictionary = residual[0].dictionary_path
    done = run("feature", 16, "--config", config_file, "--out", out, "--json")
    card = json.loads(done.stdout)
    assert card["feature"]["feature"] == 16
    for name in ("contexts", "tokens", "neighbours"):
        table = pl.read_parquet(out / f"{name}.parquet").filter(feature=16)
        assert len(card[name]) == len(table) > 0
        assert card[name][0]["feature"] == 16
    assert card["found"] == {}
    assert dictionary.exists()


def test_what_other_commands_found_of_it_is_shown(described, config_file, residual):
    from analyze.subject import open_subject

    config, store = residual
    out, _ = described
    tables = Tables(out, open_subject(store, config.dictionary_path).fingerprint)
    tables.write("scaling", pl.DataFrame({"feature": [15, 16], "nu_eps": [0.5, 0.125]}))
    done = run("feature", 16, "--config", config_file, "--out", out)
    assert "nu_eps 0.125" in done.stdout
    assert "nu_eps 0.5" not in done.stdout
    assert "feature 16   group b   claimed for b" in done.stdout


def test_tokens_that_were_looked_at_are_not_asked_of_the_models_again(
    described, config_file, monkeypatch
):
    from analyze.features import lens

    def refuse(*_):
        raise AssertionError("models were loaded")

    monkeypatch.setattr(lens, "open_lenses", refuse)
    out, _ = described
    assert "promotes" in run("feature", 16, "--config", config_file, "--out", out).stdout
    with pytest.raises(AssertionError, match="models were loaded"):
        run("feature", 9, "--config", config_file, "--out", out)
    assert (
        "promotes"
        not in run("feature", 9, "--config", config_file, "--out", out, "--no-lens").stdout
    )


@pytest.mark.parametrize("words", [["feature", 20], ["features", "--feature", 20]])
def test_a_number_that_no_feature_has_is_refused(config_file, tmp_path, words):
    with pytest.raises(ConfigError, match=r"^feature 20: .* features 0 to 19$"):
        run(*words, "--config", config_file, "--out", tmp_path)


def test_contexts_are_of_the_corpus(described, residual):
    out, _ = described
    store = residual[1]
    contexts = pl.read_parquet(out / "contexts.parquet")
    for line in contexts.sample(20, seed=0).iter_rows(named=True):
        assert line["text"] in store.documents.text(line["document"])
    assert np.isin(contexts["label"], store.documents.label_names).all()
