"""The whole verdict on a toy pair whose exclusive concepts are known, and on a pair without any."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from analyze.config import AnalyzeConfig
from analyze.null import train as null_train
from analyze.null.pair import null_pair
from analyze.null.train import null_config, train_null
from analyze.subject import open_subject
from analyze.sweep.gather import gather
from analyze.verdict.build import exclusivity
from analyze.verdict.evidence import BESIDE, EVIDENCE
from analyze.verdict.judge import EXCLUSIVE, TOO_RARE, counts, judge
from benchmarks.toy_model import ToySpec, build_toy
from benchmarks.toy_score import decoder_cosines, truth_of
from benchmarks.toy_store import toy_store
from pipeline.errors import ConfigError, DictionaryError
from train.config import TrainConfig
from train.loop import train

SPEC = ToySpec(concepts=60, widths=(20, 24), exclusive=0.1, active=2.0, decay=0.3)
CONFIG = AnalyzeConfig(batch_rows=2048, device="cpu", fdr=0.1)
TRAINING = {
    "recipes": ["dfc"],
    "features": 60,
    "exclusive": {"a": 0.15, "b": 0.15},
    "k": 3,
    "lr": 5e-3,
    "steps": 500,
    "batch_rows": 512,
    "warmup_steps": 20,
    "decay_start": 400,
    "threshold_start": 200,
    "threshold_beta": 0.98,
    "dead_after_rows": 50_000,
    "validation_fraction": 0.1,
    "device": "cpu",
}


def sweep_into(subject, accumulators, place):
    gather(subject, accumulators, CONFIG.batch_rows, place)


@pytest.fixture(scope="module")
def toy():
    return build_toy(SPEC)


@pytest.fixture(scope="module")
def subject(toy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    store = toy_store(folder / "store.zarr", toy, 40_000)
    train(store, TrainConfig.model_validate(TRAINING), folder / "dictionary")
    return open_subject(store, folder / "dictionary", "cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("analysis")


@pytest.fixture(scope="module")
def verdict(subject, folder):
    return exclusivity(subject, CONFIG, folder, sweep_into)


def test_what_is_called_exclusive_is_and_most_that_was_learned_is_called(toy, subject, verdict):
    truth = truth_of(decoder_cosines(subject.dictionary, toy), toy)
    table = verdict.table
    true = truth.owner[table["feature"].to_numpy()] == table["claimed_for"].to_numpy()
    called = (table["verdict"] == EXCLUSIVE).to_numpy()
    assert true.sum() >= 6
    assert called[true].mean() > 0.8
    assert (~true).sum() >= 3  # there was something to be wrong about
    assert not called[truth.owner[table["feature"].to_numpy()] == "shared"].any()
    assert called[~true].sum() <= 1


def test_the_table_says_why(verdict):
    for line in verdict.table.to_dicts():
        if line["verdict"] == EXCLUSIVE:
            assert line["q"] <= CONFIG.fdr
            assert line["readout_ratio"] < CONFIG.counterpart
            assert line["reason"].startswith("readout ratio")
        elif line["verdict"] == TOO_RARE:
            assert line["fires"] < CONFIG.min_fires
            assert line["p"] is None
        else:
            assert "counterpart" in line["reason"] or "null" in line["reason"]
    assert verdict.table["p"].drop_nulls().min() >= verdict.smallest_p


def test_counts_grow_with_the_rate_that_is_allowed(verdict):
    for line in counts(verdict.table, ("a", "b"), CONFIG).to_dicts():
        at = [line[key] for key in ("at 1%", "at 5%", "at 10%", "at 20%")]
        assert at == sorted(at)
        assert line["tested"] <= line["candidates"]


def test_a_null_is_trained_once_and_gives_the_same_verdict(subject, folder, verdict, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a null was trained again")

    monkeypatch.setattr(null_train, "train_on", refuse)
    assert exclusivity(subject, CONFIG, folder, sweep_into).table.equals(verdict.table)


def test_a_null_that_was_interrupted_does_not_leave_an_older_one_in_its_place(
    subject, tmp_path, monkeypatch
):
    older = tmp_path / "dictionary" / "config.json"
    older.parent.mkdir()
    older.write_text("{}")
    (tmp_path / "null.json").write_text('{"key": "another"}')

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(null_train, "train_on", interrupted)
    pair = null_pair(subject.dictionary, 0, None)
    with pytest.raises(KeyboardInterrupt):
        train_null(subject, pair, null_config(subject, 0, 1.0, "cpu"), tmp_path)
    assert not older.exists()


def test_a_model_beside_its_copy_has_nothing_of_its_own(subject, verdict, tmp_path):
    pair = null_pair(subject.dictionary, 7, None)
    config = null_config(subject, 7, 1.0, "cpu").model_copy(
        update={"exclusive": TRAINING["exclusive"]}
    )
    alike = train_null(subject, pair, config, tmp_path / "alike")
    assert alike.view_name == pair.name
    found = exclusivity(alike, CONFIG, tmp_path / "analysis", sweep_into)
    assert found.table.height >= 4
    assert not (found.table["verdict"] == EXCLUSIVE).any()


def test_without_training_the_shared_features_are_the_null(subject, verdict, folder):
    config = CONFIG.model_copy(update={"nulls": ["shared"]})
    found = exclusivity(subject, config, folder, sweep_into)
    assert list(found.nulls) == ["shared"]
    assert (found.table["verdict"] == EXCLUSIVE).sum() >= 6


def test_evidence_without_a_null_is_named(subject, folder):
    config = CONFIG.model_copy(update={"nulls": ["shared"], "evidence": ["direction"]})
    with pytest.raises(ConfigError, match="direction has no null"):
        exclusivity(subject, config, folder, sweep_into)


def test_a_dictionary_that_does_not_say_how_it_was_trained_has_no_copy_null(subject):
    with pytest.raises(DictionaryError, match="use --null shared"):
        null_config(replace(subject, description={}), 0, 1.0)


def test_a_null_is_as_long_as_asked_for_and_so_are_its_schedules(subject):
    config = null_config(subject, 0, 0.5)
    assert (config.steps, config.warmup_steps, config.decay_start) == (250, 10, 200)
    assert config.seed != subject.description["train"]["seed"]
    assert config.exclusive == {"a": 30, "b": 30}


def test_both_nulls_must_be_beaten():
    null = pl.DataFrame(
        {
            "claimed_for": ["a"] * 99,
            "fires": np.full(99, 100),
            "readout_ratio": np.linspace(0.5, 1.5, 99),
            **dict.fromkeys(EVIDENCE[1:], pl.Series([None] * 99, dtype=pl.Float64)),
        }
    )
    lower = null.with_columns(pl.col("readout_ratio") / 100)
    table = pl.DataFrame(
        {
            "feature": 4,
            "claimed_for": "a",
            "group": "a",
            "relative_decoder_norm": 1.0,
            "fires": 100,
            "candidate": True,
            "shared": False,
            **dict.fromkeys((*EVIDENCE, *BESIDE), 0.9),
            "readout_ratio": 0.1,
            "direction": 0.1,
        }
    )
    easy = judge(table, {"copy": null}, CONFIG)
    both = judge(table, {"copy": null, "shared": lower}, CONFIG)
    assert easy["verdict"].to_list() == [EXCLUSIVE]
    assert easy["p"].to_list() == [0.01]
    assert both["verdict"].to_list() == ["not shown"]
    assert both["p"].to_list() == [1.0]


def test_the_null_lies_beside_the_tables(folder, verdict):
    assert (Path(folder) / "null" / "0" / "dictionary" / "config.json").exists()
    assert (Path(folder) / "null" / "0" / "sweep" / "readout.safetensors").exists()
