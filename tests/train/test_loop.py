"""What a run learns, logs and validates."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

import train.track
from pipeline.errors import ConfigError, DictionaryError
from store.loader import ShuffledLoader
from store.reader import Store
from train.config import TrainConfig
from train.device import resolve_device
from train.loop import TrainedDictionary
from train.loop import train as train_run
from train.source import make_loader

from .conftest import tiny

CONFIG = tiny(
    steps=240,
    k_anneal_steps=60,
    decay_start=200,
    threshold_start=100,
    threshold_beta=0.95,
    validate_every=60,
    recipes=["dfc", "batch_topk_crosscoder"],
)


@pytest.fixture(scope="module")
def trained(store_path, tmp_path_factory) -> list[TrainedDictionary]:
    folder = tmp_path_factory.mktemp("trained") / "dictionary"
    return train_run(Store(store_path), CONFIG, folder)


def lines(folder: Path, kind: str = "loss") -> list[dict]:
    read = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in read if kind in line]


def test_every_recipe_gets_its_folder(trained):
    names = [entry.folder.name for entry in trained]
    assert names == ["dictionary", "dictionary-batch_topk_crosscoder"]


@pytest.mark.parametrize("number", [0, 1])
def test_held_out_rows_are_explained(trained, number):
    assert min(trained[number].validation.fve.values()) > 0.8


@pytest.mark.parametrize("number", [0, 1])
def test_fve_of_the_training_batches_improves(trained, number):
    read = lines(trained[number].folder)
    for name in ("a", "b"):
        assert read[-1]["fve"][name] > read[0]["fve"][name] + 0.3


@pytest.mark.parametrize("number", [0, 1])
def test_mean_l0_at_inference_is_near_k(trained, number):
    assert trained[number].validation.l0 == pytest.approx(CONFIG.k, rel=0.15)


def test_metrics_have_a_line_every_so_many_steps(trained):
    steps = [line["step"] for line in lines(trained[0].folder)]
    assert steps == list(range(CONFIG.log_every, CONFIG.steps + 1, CONFIG.log_every))


def test_a_metrics_line_says_everything_that_a_plot_needs(trained):
    line = lines(trained[0].folder)[-1]
    assert set(line) >= {"step", "rows", "loss", "fve", "l0", "dead_fraction", "lr", "k"}
    assert line["rows"] == CONFIG.steps * CONFIG.batch_rows
    assert set(line["fve"]) == {"a", "b"}
    assert (line["k"], line["l0"]) == (4, 4.0)
    assert line["lr"] == pytest.approx(3e-3 / 40)
    assert 0 <= line["dead_fraction"] < 1
    assert line["rows_per_second"] > 0


def test_validations_are_logged_and_the_last_one_is_the_result(trained):
    read = lines(trained[0].folder, "validation")
    assert [line["step"] for line in read] == [60, 120, 180, 240]
    assert read[-1]["validation"]["fve"] == trained[0].validation.fve


def test_validation_reads_held_out_documents_only(store, tmp_path, monkeypatch):
    held_out = store.documents.validation_mask(0.2)
    documents = store.column("document")
    seen = []
    evaluate = train.track.evaluate

    def spy(dictionary, batches):
        batches = list(batches)
        seen.extend(batch.rows for batch in batches)
        return evaluate(dictionary, batches)

    monkeypatch.setattr(train.track, "evaluate", spy)
    config = tiny(steps=20, threshold_start=1, validation_rows=10_000)
    train_run(store, config, tmp_path / "dictionary")
    rows = np.concatenate(seen)
    assert held_out[documents[rows]].all()
    assert set(documents[rows]) == set(np.flatnonzero(held_out))


def test_training_reads_no_held_out_document(store, config):
    loader = make_loader(store, config)
    batches = range(-(-loader.rows_per_epoch // config.batch_rows))
    rows = np.concatenate([loader.read(batch).rows for batch in batches])
    assert not store.documents.validation_mask(0.2)[store.column("document")[rows]].any()


def test_validation_stops_behind_the_configured_rows(store, tmp_path):
    (entry,) = train_run(store, tiny(steps=2, threshold_start=1, validation_rows=70), tmp_path)
    assert entry.validation.rows == 70


def test_the_number_of_loader_threads_does_not_change_the_weights(store, tmp_path):
    written = []
    for threads in (1, 3):
        folder = tmp_path / str(threads)
        train_run(store, tiny(steps=20, threshold_start=1, loader_threads=threads), folder)
        written.append((folder / "model.safetensors").read_bytes())
    assert written[0] == written[1]


def test_a_dictionary_trains_the_same_alone_and_beside_another(store, tmp_path):
    short = {"steps": 20, "threshold_start": 1}
    train_run(store, tiny(**short), tmp_path / "alone")
    train_run(store, tiny(**short, recipes=["batch_topk_crosscoder", "dfc"]), tmp_path / "two")
    alone, beside = (tmp_path / name / "model.safetensors" for name in ("alone", "two-dfc"))
    assert alone.read_bytes() == beside.read_bytes()


def test_progress_is_told_after_every_step(store, tmp_path):
    told = []
    config = tiny(steps=7, threshold_start=1, log_every=3)
    train_run(store, config, tmp_path, lambda done, note: told.append((done, note)))
    assert [done for done, _ in told] == list(range(1, 8))
    assert "FVE" in told[2][1]
    assert told[2][1] == told[4][1] != told[6][1]


def test_a_run_that_diverges_says_so_in_one_line(store, tmp_path):
    with pytest.raises(
        DictionaryError, match=r"is (inf|nan) at step \d+; there is no checkpoint yet"
    ):
        train_run(store, tiny(lr=1e38, gradient_clip=1e38, log_every=1), tmp_path)


def test_a_loss_spoilt_by_the_store_is_blamed_on_the_store(store, tmp_path, monkeypatch):
    gather = ShuffledLoader._gather

    third = make_loader(store, tiny()).read(2).rows

    def spoilt(self, located):
        batch = gather(self, located)
        if np.array_equal(batch.rows, third):
            batch.activations["b"][0, 0] = torch.nan
        return batch

    monkeypatch.setattr(ShuffledLoader, "_gather", spoilt)
    with pytest.raises(DictionaryError) as caught:
        train_run(store, tiny(), tmp_path / "dictionary")
    assert f"{store.path}: b: activations of batch 3 are not finite" in str(caught.value)
    assert "`store verify`" in str(caught.value)


def test_a_second_run_into_a_folder_that_is_being_written_is_refused(store, tmp_path):
    folder = tmp_path / "dictionary"
    other = tiny(recipes=["batch_topk_crosscoder"], seed=1)
    refused = []

    def on_step(done: int, note: str) -> None:
        if done == 1:
            with pytest.raises(DictionaryError, match="another training run is writing") as caught:
                train_run(store, other, folder)
            refused.append(str(caught.value))

    train_run(store, tiny(steps=2, threshold_start=1), folder, on_step)
    assert refused[0].startswith(f"{folder}: ")
    assert (tmp_path / ".dictionary.lock").exists()
    train_run(store, tiny(steps=2, threshold_start=1), folder)


def test_without_held_out_rows_there_is_no_fve(store, tmp_path):
    (entry,) = train_run(store, tiny(steps=2, threshold_start=1, validation_fraction=0.0), tmp_path)
    assert entry.validation.fve == {"a": None, "b": None}
    (line,) = lines(tmp_path, "validation")
    found = line["validation"]
    assert (found["fve"], found["l0"], found["rows"]) == ({"a": None, "b": None}, None, 0)
    assert (found["loss"], found["never_fired"], entry.best) == (None, None, None)


def test_fve_of_a_batch_of_one_row_is_logged_as_null(store, tmp_path):
    train_run(store, tiny(steps=2, threshold_start=1, batch_rows=1, log_every=1), tmp_path)
    text = (tmp_path / "metrics.jsonl").read_text()
    assert "Infinity" not in text
    assert "NaN" not in text
    assert lines(tmp_path)[0]["fve"] == {"a": None, "b": None}


@pytest.mark.parametrize("name", ["tpu please", "gpu"])
def test_an_unknown_device_is_refused(name):
    with pytest.raises(ConfigError, match=f"train.device: given '{name}'; try auto"):
        resolve_device(name)


@pytest.mark.parametrize("name", ["mps", "meta"])
def test_a_device_that_cannot_be_used_is_refused_by_the_key_that_named_it(name):
    if name == "mps" and torch.backends.mps.is_available():
        pytest.skip("there is an MPS device here")
    with pytest.raises(ConfigError, match=f"analyze.device: given '{name}'"):
        resolve_device(name, "analyze.device")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_missing_device_is_refused():
    with pytest.raises(ConfigError, match="has no CUDA device"):
        resolve_device("cuda")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"k": 50}, "k 50 is larger than features 40"),
        ({"recipes": ["dfc", "dfc"]}, "names one recipe twice"),
        ({"exclusive": {"a": 1.5}}, "a: 1.5 is neither a share, from 0.0 to below 1, nor"),
        ({"recipes": []}, "at least 1 item"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig.model_validate({**CONFIG.model_dump(), **changes})


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"features": 2}, "k"),
        ({"threshold_start": 300}, "steps"),
        ({"recipes": ["dfc", "dfc"]}, "recipes"),
        ({"exclusive": {"a": -0.1}}, "exclusive"),
    ],
)
def test_a_contradiction_is_blamed_on_one_key(changes, key):
    with pytest.raises(ValidationError) as caught:
        TrainConfig.model_validate({**CONFIG.model_dump(), **changes})
    (error,) = caught.value.errors()
    assert error["loc"][0] == key
    assert not isinstance(error["input"], TrainConfig)


def test_k_by_default_is_checked_against_features():
    with pytest.raises(ValidationError, match="k 200 is larger than features 2") as caught:
        TrainConfig(features=2)
    assert caught.value.errors()[0]["loc"] == ("k",)


def test_loss_falls_steadily(trained):
    losses = [line["loss"] for line in lines(trained[0].folder)]
    quarters = [np.mean(part) for part in np.array_split(losses, 4)]
    assert all(later < earlier for earlier, later in pairwise(quarters))
