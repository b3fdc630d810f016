"""The verdict of a dictionary of residuals, few of whose features are exclusive."""

import polars as pl
import pytest

from analyze.analysis import analyze
from analyze.command import Opened
from analyze.config import AnalyzeConfig
from analyze.page.overview import overview
from analyze.subject import open_subject
from analyze.sweep.gather import gather
from analyze.verdict.build import exclusivity, of_the_base
from analyze.verdict.cli import _say, summary
from analyze.verdict.judge import EXCLUSIVE
from analyze.verdict.plots import verdict_png
from benchmarks.toy_model import ToySpec, build_toy
from benchmarks.toy_score import decoder_cosines, truth_of
from benchmarks.toy_store import toy_store
from train.config import TrainConfig
from train.loop import train

from .test_build import TRAINING

SPEC = ToySpec(concepts=60, widths=(20, 24), exclusive=0.1, active=2.0, decay=0.3, seed=3)
CONFIG = AnalyzeConfig(batch_rows=2048, device="cpu", fdr=0.2)
OWN = {"recipes": ["residual_dfc"], "features": 40, "exclusive": {}, "k": 1, "auxk": 8}


@pytest.fixture(scope="module")
def toy():
    return build_toy(SPEC)


@pytest.fixture(scope="module")
def judged(toy, tmp_path_factory):
    """What is judged and the verdict on it."""
    folder = tmp_path_factory.mktemp("toy")
    store = toy_store(folder / "store.zarr", toy, 40_000)
    train(store, TrainConfig.model_validate({**TRAINING, **OWN}), folder / "dictionary")
    subject = open_subject(store, folder / "dictionary", "cpu")

    def sweep_into(one, accumulators, place):
        gather(one, accumulators, CONFIG.batch_rows, place)

    return Opened(subject, CONFIG, folder), exclusivity(subject, CONFIG, folder, sweep_into)


def test_exclusive_concepts_are_called_and_mirror_images_are_not(toy, judged):
    opened, verdict = judged
    dictionary, table = opened.subject.dictionary, verdict.table
    truth = truth_of(decoder_cosines(dictionary, toy), toy)
    features = table["feature"].to_numpy()
    true = truth.owner[features] == table["claimed_for"].to_numpy()
    called = (table["verdict"] == EXCLUSIVE).to_numpy()
    assert len(set(truth.concept[features[called & true]])) >= 9  # of 12
    assert (called & ~true).sum() <= 0.2 * called.sum()
    mirrored = (table["readout_ratio"] > 1).to_numpy()
    assert mirrored.sum() >= 3
    assert not called[mirrored].any()


def test_its_rate_is_said_not_to_be_calibrated(judged, capsys):
    opened, verdict = judged
    assert "not calibrated" in summary(opened, verdict)["caution"]
    _say(opened, verdict, [], as_json=False)
    assert "note: the false-discovery rate of a dictionary of residuals" in capsys.readouterr().err
    report = analyze(opened.subject, CONFIG)
    said = overview(report, verdict.table, None, 0.2)
    assert "not calibrated" in said.caution


def test_a_null_without_features_is_not_drawn(judged, tmp_path):
    verdict = judged[1]
    assert verdict.nulls["shared"].is_empty()
    verdict_png(verdict.table, verdict.nulls, ("a", "b"), tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 1000


def test_what_the_copy_alone_has_is_no_null():
    names = ("claimed_for", "readout_ratio")
    lines = [("a", 0.1), ("a", 40.0), ("b", 0.001), ("a", 1.0), ("a", None)]
    table = pl.DataFrame(lines, names, orient="row")
    assert of_the_base(table, "a").rows() == [("a", 0.1), ("a", 1.0)]
