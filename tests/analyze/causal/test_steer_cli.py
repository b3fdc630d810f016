"""`analyze steer` from its options to its files."""

import json

import polars as pl
import pytest
import yaml
from typer.testing import CliRunner

from analyze.causal.steer_cli import read_alphas, steer
from analyze.causal.steer_ranked import ranked_features
from analyze.exclusive import Claim
from analyze.subject import open_subject
from analyze.tables import Tables
from pipeline.command import make_app
from pipeline.errors import ConfigError, CrossdiffError, StoreError
from train.dictionary.partition import dedicated

from .directed import directed, saved

A, B = "a.model.layers.1.out", "b.gpt_neox.layers.1.out"


@pytest.fixture(scope="module")
def options(harvested, tmp_path_factory):
    config, store = harvested
    folder = tmp_path_factory.mktemp("cli")
    partition = dedicated(("a", "b"), 24, {"a": 4, "b": 4})
    dictionary = saved(directed(store, (A, B), partition), folder / "dictionary")
    raw = {**config.raw, "analyze": {"contexts": 2, "min_fires": 1, "batch_rows": 64}}
    (folder / "pipeline.yaml").write_text(yaml.safe_dump(raw))
    return ["--config", folder / "pipeline.yaml", "--dictionary", dictionary]


@pytest.fixture
def run(options, tmp_path):
    app = make_app("test")
    app.command()(steer)
    app.callback()(lambda: None)

    def call(*words):
        given = [*options, "--out", tmp_path / "tables", *words]
        return CliRunner().invoke(app, ["steer", *map(str, given)])

    return call


def read(tmp_path, name):
    return pl.read_parquet(tmp_path / "tables" / f"{name}.parquet")


def test_named_features_are_steered_in_both_models_and_carried_over(run, tmp_path):
    done = run("--feature", 1, "--feature", 22, "--alphas", "-1,1,0", "--json", "--generate", 1,
               "--new-tokens", 3)  # fmt: skip
    assert done.exit_code == 0, done.output
    value = json.loads(done.stdout)
    assert [step["feature"] for step in value["steps"]] == [1, 1, 1, 22, 22, 22]
    table = read(tmp_path, "steer")
    keys = table.select("feature", "steered", "mapped", "steerable").unique(maintain_order=True)
    assert keys.rows() == [
        (1, "a", False, True), (1, "b", False, False), (1, "b", True, True),
        (22, "a", False, False), (22, "b", False, True), (22, "a", True, True),
    ]  # fmt: skip
    assert table["alpha"].to_list() == [-1.0, 0.0, 1.0] * 6
    none = table.filter(~pl.col("steerable"))
    assert none["kl_firing"].to_list() == none["kl_silent"].to_list() == [0.0] * 6
    tokens, texts = read(tmp_path, "steer_tokens"), read(tmp_path, "steer_texts")
    assert set(tokens.select("feature", "steered", "mapped").rows()) == {
        (1, "a", False), (1, "b", True), (22, "b", False), (22, "a", True),
    }  # fmt: skip
    assert set(texts["alpha"]) == {-1.0, 0.0, 1.0}
    for file in value["files"]:
        assert (tmp_path / file).stat().st_size > 0
    page = (tmp_path / "tables" / "steer.html").read_text(encoding="utf-8")
    assert "feature 22 (b)" in page


def test_without_names_the_claims_of_both_models_are_taken(run, tmp_path):
    done = run("--top", 1, "--alphas", "0,2", "--no-mapped")
    assert done.exit_code == 0, done.output
    assert "exclusive group, by summed activation" in done.stdout
    table = read(tmp_path, "steer")
    assert table["claimed_for"].unique(maintain_order=True).to_list() == ["a", "b"]
    assert not table["mapped"].any()
    assert len(table) == 2 * 2 * 2
    assert "KL in nats at alpha 2" in done.stdout


def test_one_model_is_steered_alone_by_its_own_directions(run, tmp_path):
    done = run("--feature", 9, "--model", "b", "--alphas", "1", "--hookpoint", B)
    assert done.exit_code == 0, done.output
    table = read(tmp_path, "steer")
    assert table.select("steered", "hookpoint", "mapped").rows() == [("b", B, False)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--feature", 22, "--model", "a"], "feature 22 is of group b: a has no direction"),
        (["--feature", 24], "no feature 24; it has 24"),
        (["--model", "c"], "--model c: the models are a, b"),
        (["--hookpoint", "x"], f"--hookpoint x: there is {A}, {B}"),
        (["--alphas", "1,two"], "--alphas '1,two': needs numbers"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line_before_a_model_is_loaded(
    run, monkeypatch, words, message
):
    def refuse(*_):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("analyze.causal.models.open_models", refuse)
    done = run(*words)
    assert isinstance(done.exception, CrossdiffError)
    assert message in str(done.exception)
    assert "\n" not in str(done.exception)


def test_texts_that_are_not_found_again_are_said(run, monkeypatch):
    from analyze.causal import steer_scenes
    from analyze.causal.passages import Passages

    lost = Passages((), {"chats, which each model read in its own template": 3})
    monkeypatch.setattr(steer_scenes, "find_passages", lambda *_: lost)
    done = run("--feature", 9, "--alphas", "1")
    assert isinstance(done.exception, StoreError)
    assert "no document to steer on is found again" in str(done.exception)
    assert "chats, which each model read in its own template" in str(done.exception)


@pytest.mark.parametrize("text", ["", "1,,2", "nan", "inf,1"])
def test_a_grid_that_is_none_is_refused(text):
    with pytest.raises(ConfigError, match="--alphas"):
        read_alphas(text)


def test_a_grid_is_in_order_and_has_no_number_twice():
    assert read_alphas("4, -4,0,4,0.5") == (-4.0, 0.0, 0.5, 4.0)


CLAIMS = [Claim("a", "by norm", [7, 8, 9], [0.9] * 3), Claim("b", "by norm", [1, 2], [0.1] * 2)]


def test_verdicts_come_before_claims_and_claims_stand_in_where_there_are_none():
    verdicts = pl.DataFrame(
        {
            "feature": [5, 6, 4, 3, 2],
            "claimed_for": ["a", "a", "a", "a", "b"],
            "verdict": ["exclusive", "exclusive", "not shown", "exclusive", "too rare"],
            "q": [0.04, 0.01, 0.001, None, 0.5],
        }
    )
    found = ranked_features(CLAIMS, verdicts, 2)
    assert [(one.model, one.features) for one in found] == [("a", [6, 5]), ("b", [1, 2])]
    assert [one.rule for one in found] == ["found exclusive, by q", "by norm"]
    assert [one.features for one in ranked_features(CLAIMS, None, 2)] == [[7, 8], [1, 2]]


def test_verdicts_of_another_dictionary_are_not_used(harvested, options, run, tmp_path):
    subject = open_subject(harvested[1], options[3], "cpu")
    verdicts = pl.DataFrame(
        {"feature": [2], "claimed_for": ["a"], "verdict": ["exclusive"], "q": [0.01]}
    )
    Tables(tmp_path / "tables", subject.fingerprint).write("exclusivity", verdicts)
    assert run("--top", 3, "--alphas", "1", "--no-mapped").exit_code == 0
    own = pl.col("claimed_for") == "a"
    assert read(tmp_path, "steer").filter(own)["feature"].unique().to_list() == [2]
    Tables(tmp_path / "tables", "another").write("exclusivity", verdicts)
    assert run("--top", 3, "--alphas", "1", "--no-mapped").exit_code == 0
    assert read(tmp_path, "steer").filter(own)["feature"].n_unique() == 3
