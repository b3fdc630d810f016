"""`analyze compare` on a store whose features are known, and on copies of its dictionary."""

import json
from pathlib import Path

import polars as pl
import pytest
import torch
from typer.testing import CliRunner

from analyze.compare.cli import compare
from analyze.subject import open_subject
from analyze.tables import Tables
from pipeline.command import make_app
from pipeline.errors import DictionaryError
from train.dictionary.artifact import load_dictionary, save_dictionary

FIRING = [0, 2, 3, 5]
ORDER = [1, 0, 4, 2, 3, 6, 5]  # feature n of the copy is feature ORDER[n]; groups stay together


@pytest.fixture(scope="module")
def permuted(dfc_folder, tmp_path_factory):
    """The same DFC with its features in another order within each group."""
    dictionary = load_dictionary(dfc_folder)
    order = torch.tensor(ORDER)
    with torch.no_grad():
        for n in range(2):
            visible = dictionary.visibility(n)
            rows = visible.local_F[order[visible.features_V]]
            for weights in (dictionary.W_enc, dictionary.W_dec):
                weights[str(n)].copy_(weights[str(n)][rows].clone())
    folder = tmp_path_factory.mktemp("permuted") / "seed-1"
    save_dictionary(folder, dictionary, {"recipe": "dfc"})
    return folder


@pytest.fixture
def run(known_store, dfc_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    app = make_app("test")
    app.command()(compare)

    def call(other, *words, dictionary=dfc_folder):
        paths = [str(dictionary), str(other), "--store", str(known_store.path)]
        # Both hookpoints' norms differ fourfold by construction: that is shared here.
        keys = ["--set", "analyze.norm_shared=0.85", "--set", "analyze.batch_rows=32"]
        return CliRunner().invoke(app, [*paths, *keys, *words], catch_exceptions=False)

    return call


def test_a_dictionary_in_another_order_replicates_wholly(run, permuted, tmp_path):
    done = run(permuted, "--json", "--out", "out")
    value = json.loads(done.stdout)
    assert value["called_by"] == "tags"
    assert value["mmcs"] == {"first": pytest.approx(1), "other": pytest.approx(1)}
    for line in value["replication"]:
        assert line["replicated"] == line["mutual"] == line["features"]
        assert line["features"] == {"a_only": 1, "shared": 2, "b_only": 1}[line["called"]]
    table = pl.read_parquet(tmp_path / "out" / "compare.parquet")
    alive = table.filter(pl.col("fires") > 0)
    assert alive["feature"].to_list() == FIRING
    for column in ("other_feature", "active_feature"):
        assert [ORDER[match] for match in alive[column]] == FIRING
        assert table.filter(pl.col("fires") == 0)[column].null_count() == 3
    for column in ("other_cosine", "other_correlation", "active_correlation"):
        assert alive[column].to_list() == pytest.approx([1] * 4)
    assert set(value["files"]) == {
        f"out/compare.{end}" for end in ("parquet", "csv", "png", "html")
    }


def test_an_exclusive_finding_that_the_other_calls_shared_does_not_replicate(
    run, crosscoder_folder, tmp_path
):
    # A crosscoder in which feature 0 has a decoder at model b as large as that at model a.
    dictionary = load_dictionary(crosscoder_folder)
    with torch.no_grad():
        dictionary.W_dec["1"][0, 7] = 2.0
    save_dictionary(tmp_path / "other", dictionary, {"recipe": "crosscoder"})
    value = json.loads(run(tmp_path / "other", "--json").stdout)
    found = {
        (line["dictionary"], line["called"], line["by"]): line for line in value["replication"]
    }
    for by in ("direction", "activity"):
        lost = found["dictionary", "a_only", by]
        assert (lost["replicated"], lost["to_shared"]) == (0, 1)
        kept = found["dictionary", "b_only", by]
        assert (kept["replicated"], kept["share"]) == (1, 1.0)


def test_verdicts_call_features_where_both_dictionaries_have_them(
    run, known_store, dfc_folder, permuted, tmp_path
):
    analysis = tmp_path / "runs" / "default" / "analysis"
    said = {"claimed_for": ["a", "b"], "verdict": ["exclusive", "not shown"]}
    first = pl.DataFrame({"feature": [0, 5], **said})
    folders = analysis / "dictionary", analysis / "seed-1"
    subjects = [open_subject(known_store, folder) for folder in (dfc_folder, permuted)]
    Tables(folders[0], subjects[0].fingerprint).write("exclusivity", first)
    assert json.loads(run(permuted, "--json").stdout)["called_by"] == "tags"
    printed = run(permuted).stdout
    assert "seed-1 has no verdicts yet: analyze exclusivity" in printed
    there = folders[1].relative_to(Path.cwd())  # not over the tables of the first
    assert f"--dictionary {permuted} --out {there}" in printed
    other = pl.DataFrame({"feature": [1, 6], **said})
    Tables(folders[1], subjects[1].fingerprint).write("exclusivity", other)
    value = json.loads(run(permuted, "--json").stdout)
    assert value["called_by"] == "verdicts"
    features = {line["called"]: line["features"] for line in value["replication"]}
    assert features == {"a_only": 1, "b_only": 0, "shared": 2}
    table = pl.read_parquet(folders[0] / "compare.parquet")
    assert table["verdict"].to_list() == ["exclusive", *[None] * 4, "not shown", None]
    assert table["other_verdict"].to_list()[0] == "exclusive"


def test_verdicts_of_a_dictionary_of_another_run_are_found_beside_it(
    run, known_store, dfc_folder, tmp_path
):
    other = tmp_path / "elsewhere" / "dictionary"
    save_dictionary(other, load_dictionary(dfc_folder), {"recipe": "other"})
    verdicts = pl.DataFrame({"feature": [0], "claimed_for": ["a"], "verdict": ["exclusive"]})
    for folder, place in ((dfc_folder, "out"), (other, "elsewhere/analysis")):
        fingerprint = open_subject(known_store, folder).fingerprint
        Tables(tmp_path / place, fingerprint).write("exclusivity", verdicts)
    value = json.loads(run(other, "--out", "out", "--json").stdout)
    assert value["called_by"] == "verdicts"
    assert [line["replicated"] for line in value["replication"][:3]] == [1, 0, 2]


def test_a_comparison_with_itself_is_told_apart(run, dfc_folder):
    value = json.loads(run(dfc_folder, "--json").stdout)
    assert {line["dictionary"] for line in value["replication"]} == {
        "dictionary",
        "dictionary (itself)",
    }


def test_the_terminal_has_replicated_findings_beside_chance(run, permuted):
    shown = run(permuted).stdout
    assert "by direction: findings of dictionary in seed-1" in shown
    assert "by activity: findings of seed-1 in dictionary" in shown
    assert "1 of 1" in shown
    assert "called by tags" in shown


def test_the_sweep_is_not_made_twice(run, permuted, monkeypatch):
    run(permuted, "--out", "out")

    def refuse(*_, **__):
        raise AssertionError("the store was read")

    monkeypatch.setattr("analyze.sweep.gather.sweep", refuse)
    assert run(permuted, "--out", "out").exit_code == 0
    with pytest.raises(AssertionError, match="the store was read"):
        run(permuted, "--out", "out", "--set", "analyze.match_candidates=2")


def test_a_missing_dictionary_is_named(run):
    with pytest.raises(DictionaryError, match=r"nowhere/config\.json: no such file"):
        run("nowhere")


def test_help_says_what_is_covered_and_by_which_formulas(run):
    shown = " ".join(run("--help").stdout.split())
    for word in ("cosine of decoders", "(n S_jk - S_j S_k)", "match_candidates", "2501.16615"):
        assert word in shown
