"""The toy benchmark end to end, on models of a second; and that it goes on where it was."""

import json
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
import torch
from typer.testing import CliRunner

import benchmarks.toy
from benchmarks.toy import ToyBenchmark, app, run_benchmark
from benchmarks.toy_model import ToySpec, build_toy
from benchmarks.toy_run import RECIPES, ToyTraining, fired, learning_curve, train_and_score
from benchmarks.toy_score import decoder_cosines, recall_of, recovered
from benchmarks.toy_store import toy_store
from benchmarks.toy_table import COLUMNS, check_settings, read_results, summary_of, table_of
from pipeline.errors import ConfigError
from train.dictionary.artifact import load_dictionary
from train.loop import train

SPEC = ToySpec(concepts=40, widths=(16, 16), exclusive=0.1, active=2.0)
TRAINING = ToyTraining(rows=4096, steps=60, batch_rows=128, k=4, points=3)
OPTIONS = [
    *("--concepts", "40", "--widths", "16", "12", "--active", "2", "--seeds", "2"),
    *("--rows", "4096", "--steps", "40", "--batch-rows", "128", "--k", "4"),
    *("--features", "20", "--features", "40", "--device", "cpu"),
]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def small_rows():
    """Fewer rows to see which features fire."""
    patch = pytest.MonkeyPatch()
    patch.setattr("benchmarks.toy_run.ALIVE_ROWS", 4096)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def finished(tmp_path_factory, small_rows) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("toy")
    result = CliRunner().invoke(app, [*OPTIONS, "--out", str(out)], catch_exceptions=False)
    assert result.exit_code == 0
    return out, result.stdout


def test_the_benchmark_prints_a_line_per_size_and_recipe_and_writes_everything(finished):
    out, printed = finished
    lines = [line for line in printed.splitlines() if line.startswith("|")]
    assert [line.split("|")[1:3] for line in lines[2:]] == [
        [f" {size} ", f" `{recipe}` "]
        for size in (20, 40)
        for recipe in (
            "batch_topk_crosscoder",
            "dfc",
            "residual_dfc",
        )  # dsf ties decoders of one width
    ]
    assert len({line.count("|") for line in lines}) == 1
    table = pl.read_parquet(out / "toy.parquet")
    assert table["seeds"].to_list() == [2] * 6
    assert COLUMNS.keys() <= set(table.columns)
    assert table.equals(pl.read_csv(out / "toy.csv", schema=table.schema))
    assert pl.read_parquet(out / "curves.parquet")["step"].n_unique() == 20
    assert (out / "toy.png").read_bytes().startswith(b"\x89PNG")
    assert "plotly" in (out / "toy.html").read_text()
    assert not list(out.glob("seed-*"))


def test_what_is_done_is_not_trained_again(finished, monkeypatch):
    out, printed = finished
    monkeypatch.setattr(benchmarks.toy, "train_and_score", None)
    again = CliRunner().invoke(app, [*OPTIONS, "--out", str(out)], catch_exceptions=False)
    assert again.stdout == printed


def test_other_settings_are_refused_by_name(finished):
    out, _ = finished
    result = CliRunner().invoke(app, [*OPTIONS, "--steps", "50", "--out", str(out)])
    assert isinstance(result.exception, ConfigError)
    assert "settings.json: was written with steps 40, now 50" in str(result.exception)


def test_a_run_that_was_cut_short_trains_only_what_is_missing(tmp_path, small_rows):
    whole = ToyBenchmark(SPEC, replace(TRAINING, recipes=("dfc",)), (20, 30), seeds=1)
    first = run_benchmark(replace(whole, features=(20,)), tmp_path / "cut")
    with (tmp_path / "cut" / "results.jsonl").open("a") as file:
        file.write('{"seed": 0, "feat')
    assert run_benchmark(whole, tmp_path / "cut") == run_benchmark(whole, tmp_path / "whole")
    assert read_results(tmp_path / "cut")[:1] == first


def test_the_curve_ends_at_what_the_trained_dictionary_recovers(tmp_path, small_rows):
    toy = build_toy(SPEC)
    store = toy_store(tmp_path / "store.zarr", toy, TRAINING.rows)
    config = TRAINING.config(40, 0, SPEC.widths)
    trained = train(store, config, tmp_path / "run")
    assert [one.recipe for one in trained] == list(RECIPES)
    for one in trained:
        curve = learning_curve(one.folder / "checkpoints", toy)
        found = recovered(decoder_cosines(load_dictionary(one.folder), toy))
        recall = recall_of(found, toy.owner)
        assert [point.step for point in curve] == [20, 40, 60]
        assert (curve[-1].exclusive, curve[-1].shared) == (recall.exclusive, recall.shared)


def test_features_that_fire_are_those_with_a_code(tmp_path):
    toy = build_toy(SPEC)
    store = toy_store(tmp_path / "store.zarr", toy, TRAINING.rows)
    one = train(store, TRAINING.config(40, 0, SPEC.widths), tmp_path / "run")[0]
    dictionary = load_dictionary(one.folder)
    rows = {f"{model}.toy": toy.sample(700, 9).x_BD[model] for model in "ab"}
    codes = dictionary.encode(rows)
    dense_BF = torch.zeros(700, 40)
    dense_BF.view(-1)[codes.pattern.flat] = codes.values
    assert fired(dictionary, rows, batch=64).tolist() == (dense_BF > 0).any(0).tolist()


def test_exclusive_concepts_are_found_and_measures_are_means_over_seeds(tmp_path, small_rows):
    """Random directions recover nothing at these widths."""
    training = replace(TRAINING, steps=150, rows=8192, recipes=("dfc",), points=2)
    results = []
    for seed in range(2):
        toy = build_toy(replace(SPEC, widths=(24, 24), seed=seed))
        store = toy_store(tmp_path / f"{seed}.zarr", toy, training.rows)
        results += train_and_score(toy, store, training, 60, tmp_path / f"run-{seed}")
    recalls = [one.score.recall.exclusive for one in results]
    assert min(recalls) > 0.2
    summary = summary_of(table_of(results)).row(0, named=True)
    mean = sum(recalls) / 2
    assert summary["recall_exclusive"] == pytest.approx(mean)
    assert summary["recall_exclusive_std"] == pytest.approx(abs(recalls[0] - recalls[1]) / 2**0.5)
    assert not list(tmp_path.glob("run-*"))


def test_settings_stay_what_they_were_at_first(tmp_path):
    check_settings(tmp_path, {"steps": 10, "widths": (2, 3)})
    check_settings(tmp_path, {"steps": 10, "widths": [2, 3]})
    assert json.loads((tmp_path / "settings.json").read_text()) == {"steps": 10, "widths": [2, 3]}
    with pytest.raises(ConfigError, match="widths"):
        check_settings(tmp_path, {"steps": 10, "widths": (2, 4)})
