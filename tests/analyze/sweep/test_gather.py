"""Sweeps that resume, are shared by processes, and are not made twice."""

from pathlib import Path

import numpy as np
import pytest
import torch

from analyze.compare.coactivation import Coactivation
from analyze.compare.directions import nearest
from analyze.statistics import firing as firing_module
from analyze.statistics.cofiring import CoFiring
from analyze.statistics.firing import Firing
from analyze.statistics.kept_rows import KeptRows
from analyze.statistics.latent_scaling import LatentScaling
from analyze.statistics.moments import Moments
from analyze.statistics.readout import Readout
from analyze.statistics.reconstruction import Reconstruction
from analyze.subject import open_subject
from analyze.sweep import gather as module
from analyze.sweep import seen
from analyze.sweep.gather import gather
from analyze.sweep.saved import Share, _code_of, key_of, load
from train.dictionary import crosscoder

BATCH = 16


def everything(subject):
    return [
        Firing(subject.features, subject.labels),
        KeptRows("top", subject.features, 3),
        KeptRows("sample", subject.features, 5),
        Reconstruction(subject),
        LatentScaling(subject, BATCH, directions=True),
        Coactivation(subject, subject, nearest(subject.dictionary, subject.dictionary, 3)),
        CoFiring(subject.features, np.arange(4), np.arange(2, 7)),
        Moments(subject),
        Readout(subject),
    ]


@pytest.fixture
def subject(known_store, dfc_folder):
    return open_subject(known_store, dfc_folder)


@pytest.fixture
def undisturbed(subject):
    found = everything(subject)
    gather(subject, found, BATCH)
    return found


def assert_same(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert one.state().keys() == other.state().keys()
        for name, value in one.state().items():
            torch.testing.assert_close(value, other.state()[name], rtol=1e-9, atol=1e-9)


@pytest.fixture
def no_reading(monkeypatch):
    def forbid():
        def refuse(*_, **__):
            raise AssertionError("the store was read")

        monkeypatch.setattr(module, "sweep", refuse)

    return forbid


def test_a_second_report_never_reads_the_store(subject, undisturbed, tmp_path, no_reading):
    gather(subject, everything(subject), BATCH, tmp_path)
    no_reading()
    again, told = everything(subject), []
    gather(subject, again, BATCH, tmp_path, told.append)
    assert_same(again, undisturbed)
    assert sum(told) == subject.store.rows


def test_only_what_is_missing_is_summed_up(subject, undisturbed, tmp_path):
    gather(subject, everything(subject)[:2], BATCH, tmp_path)
    found = everything(subject)
    gather(subject, found, BATCH, tmp_path)
    assert_same(found, undisturbed)


@pytest.mark.parametrize("of", [2, 3, 7])
def test_tasks_that_share_the_store_add_up(subject, undisturbed, tmp_path, no_reading, of):
    for task in reversed(range(of)):
        gather(subject, everything(subject), BATCH, tmp_path, share=Share(task, of))
    no_reading()
    found = everything(subject)
    gather(subject, found, BATCH, tmp_path)
    assert_same(found, undisturbed)


def test_an_incomplete_set_of_tasks_does_not_pass_for_the_whole(subject, undisturbed, tmp_path):
    gather(subject, everything(subject), BATCH, tmp_path, share=Share(0, 2))
    found = everything(subject)
    gather(subject, found, BATCH, tmp_path)
    assert_same(found, undisturbed)


@pytest.mark.parametrize("at", [1, 5, 11])
def test_an_interrupted_sweep_goes_on_where_it_was(subject, undisturbed, tmp_path, monkeypatch, at):
    monkeypatch.setattr(module, "SAVE_EVERY", 0.0)
    plain, batches = module.look, []

    def dies(*given):
        batches.append(1)
        if len(batches) == at * 4:
            raise KeyboardInterrupt
        return plain(*given)

    monkeypatch.setattr(module, "look", dies)
    with pytest.raises(KeyboardInterrupt):
        gather(subject, everything(subject), BATCH, tmp_path)
    monkeypatch.setattr(module, "look", plain)
    told, found = [], everything(subject)
    gather(subject, found, BATCH, tmp_path, told.append)
    assert_same(found, undisturbed)
    assert sum(told) == subject.store.rows
    if at > 1:
        assert told[0] > 0  # what had been saved was not read again


def test_sums_of_another_dictionary_or_setting_are_not_used(
    subject, known_store, crosscoder_folder, tmp_path
):
    gather(subject, everything(subject), BATCH, tmp_path)
    firing = Firing(7, subject.labels)
    file = Share().file(tmp_path, "firing")
    assert load(file, key_of(subject.fingerprint, firing, Share())) is not None
    other = open_subject(known_store, crosscoder_folder)
    assert load(file, key_of(other.fingerprint, firing, Share())) is None
    larger = KeptRows("top", 7, 4)
    kept = Share().file(tmp_path, "rows_top")
    assert load(kept, key_of(subject.fingerprint, larger, Share())) is None


@pytest.mark.parametrize("changed", [firing_module, seen, crosscoder])  # all that it draws on
def test_sums_of_another_version_of_the_code_are_not_used(subject, tmp_path, monkeypatch, changed):
    def key():
        _code_of.cache_clear()
        return key_of(subject.fingerprint, Firing(7, subject.labels), Share())

    before, source = key(), Path(changed.__file__).read_text()
    copy = tmp_path / "copy.py"
    copy.write_text(source)
    monkeypatch.setattr(changed, "__file__", str(copy))
    assert key() == before
    copy.write_text(source + "\n")
    assert key() != before
    monkeypatch.undo()
    assert key() == before


@pytest.mark.parametrize("content", [b"", b"not safetensors", b"\x10\0\0\0\0\0\0\0{}"])
def test_a_damaged_file_is_made_again(subject, undisturbed, tmp_path, content):
    gather(subject, everything(subject), BATCH, tmp_path)
    Share().file(tmp_path, "firing").write_bytes(content)
    found = everything(subject)
    gather(subject, found, BATCH, tmp_path)
    assert_same(found, undisturbed)


def test_the_sample_is_of_all_rows_that_fire_and_of_distinct_documents(subject, undisturbed):
    sample = undisturbed[2]
    fires = undisturbed[0].fires.sum(axis=1)
    documents = subject.store.column("document")
    for feature in range(7):
        rows = [row for row, _ in sample.of(feature)]
        assert len(rows) == min(5, fires[feature])
        assert len(set(documents[rows])) == len(rows)


def test_the_fingerprint_is_of_content_not_of_place(known_store, dfc_folder, tmp_path):
    here = open_subject(known_store, dfc_folder)
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in ("config.json", "model.safetensors"):
        (copy / file).write_bytes((dfc_folder / file).read_bytes())
    assert open_subject(known_store, copy).fingerprint == here.fingerprint
    config = (copy / "config.json").read_text()
    (copy / "config.json").write_text(config.replace('"dfc"', '"other"'))
    assert open_subject(known_store, copy).fingerprint != here.fingerprint


def test_quantiles_are_within_a_bin_of_the_exact_ones(undisturbed, subject):
    generator = np.random.default_rng(0)
    values = np.exp(generator.normal(0, 1.5, (3, 400))).astype(np.float32)
    firing = Firing(3, subject.labels)
    features = np.repeat(np.arange(3), 400)
    from analyze.sweep.seen import Entries

    zeros = np.zeros(1200, np.int64)
    firing.add(Entries(features, values.ravel(), zeros, zeros), zeros, zeros)
    for number, level in enumerate(levels := [0.1, 0.5, 0.9, 0.99]):
        exact = np.quantile(values, level, axis=1, method="inverted_cdf")
        found = firing.quantiles(levels)[:, number]
        assert (found >= exact * (1 - 1e-6)).all()
        assert (found <= exact * 2**0.125 * (1 + 1e-6)).all()
    assert np.isnan(Firing(1, subject.labels).quantiles([0.5])).all()
