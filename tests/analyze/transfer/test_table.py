"""The tables of `analyze transfer`, their summary, picture and command."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from analyze.statistics.moments import Moments
from analyze.statistics.readout import Readout
from analyze.subject import open_subject
from analyze.sweep.gather import gather
from analyze.transfer.cli import _say, transfer
from analyze.transfer.directions import Maps, directions, own_decoder
from analyze.transfer.plots import transfer_figure, transfer_png
from analyze.transfer.table import all_maps, maps_table, transfer_summary, transfer_table
from train.dictionary.fold import fold

from ..conftest import A, B


@pytest.fixture(scope="module")
def subject(known_store, dfc_folder):
    return open_subject(known_store, dfc_folder)


@pytest.fixture(scope="module")
def sums(subject):
    found = Moments(subject), Readout(subject)
    gather(subject, found, 16)
    return found


@pytest.fixture(scope="module")
def maps(subject, sums) -> list[Maps]:
    return all_maps(subject, sums[0])


@pytest.fixture(scope="module")
def table(subject, maps, sums) -> pl.DataFrame:
    return transfer_table(subject, maps, *sums)


def test_every_feature_has_one_line_for_the_model_it_is_claimed_for(table):
    assert table["feature"].to_list() == list(range(7))
    lines = {line["feature"]: line for line in table.to_dicts()}
    assert (lines[0]["group"], lines[0]["claimed_for"]) == ("a", "a")
    assert (lines[0]["own_hookpoint"], lines[0]["other_hookpoint"]) == (A, B)
    assert (lines[5]["claimed_for"], lines[5]["own_hookpoint"]) == ("b", B)


def test_what_both_models_write_is_read_from_either(table):
    lines = {line["feature"]: line for line in table.to_dicts()}
    for feature in (2, 3):
        assert lines[feature]["readout_ratio"] == pytest.approx(1, abs=0.02)
        assert lines[feature]["direction_r2"] > 0.95
    # What only one writes can be told from the other only by what is absent there.
    for feature in (0, 5):
        assert lines[feature]["readout_ratio"] < lines[2]["readout_ratio"] - 0.05
        assert lines[feature]["direction_r2"] < 0.95


def test_features_that_never_fire_have_no_readout_but_a_direction_where_they_have_a_decoder(table):
    silent = table.filter(pl.col("feature").is_in([1, 4, 6]))
    for name in ("readout_own", "readout_other", "readout_ratio", "direction_r2"):
        assert silent[name].null_count() == 3
    assert silent["mapped_norm"].is_not_nan().all()


def test_directions_are_those_of_the_matrices_written_out(subject, maps):
    features = torch.tensor([0, 3, 5, 2])
    found = directions(subject.dictionary, maps[0], features)
    there, back = (m.weight_TS.numpy() for m in (maps[0].there, maps[0].back))
    for n, feature in enumerate(features.tolist()):
        if feature == 5:  # model b's own: model a has no decoder of it
            assert found.mapped_norm[n].isnan()
            assert found.round_trip[n].isnan()
            continue
        d = subject.dictionary.W_dec["0"][feature].detach().double().numpy()
        size = np.linalg.norm(d)
        assert float(found.mapped_norm[n]) == pytest.approx(np.linalg.norm(there @ d) / size)
        assert float(found.round_trip[n]) == pytest.approx(d @ back @ there @ d / size**2)
        assert float(found.r2[n]) == pytest.approx(
            float(maps[0].back.r2_along(torch.from_numpy(d)[None])[0])
        )


def test_decoders_are_in_scaled_units_wherever_the_scale_is(subject):
    folded, _ = fold(subject.dictionary)
    features = torch.arange(7)
    for number in (0, 1):
        torch.testing.assert_close(
            own_decoder(folded, number, features), own_decoder(subject.dictionary, number, features)
        )


def test_the_maps_table_has_both_ways_and_what_they_rest_on(subject, maps, sums):
    lines = maps_table(subject, maps).to_dicts()
    assert [(line["from"], line["to"]) for line in lines] == [(A, B), (B, A)]
    held_out = int(subject.held_out[subject.store.column("document")].sum())
    for line in lines:
        assert (line["rows"], line["held_out_rows"]) == (720 - held_out, held_out)
        assert 0 < line["r2"] <= 1


def test_the_summary_has_medians_of_what_fired(table):
    found = {(r["claimed_for"], r["group"]): r for r in transfer_summary(table).to_dicts()}
    assert found["a", "a"]["features"] == 1
    wanted = table.filter(pl.col("feature") == 0)["readout_ratio"][0]
    assert found["a", "a"]["median_readout_ratio"] == wanted
    assert sum(line["features"] for line in found.values()) == 4


def test_pictures_have_the_ratios_by_group(table, tmp_path):
    transfer_png(table, ("a", "b"), tmp_path / "transfer.png")
    assert (tmp_path / "transfer.png").read_bytes()[:4] == b"\x89PNG"
    figure = transfer_figure(pl.concat([table, table]), ("a", "b"))  # as of two pairs
    assert [trace.name for trace in figure.data] == ["a (1)", "shared (2)", "b (1)"]


def test_a_dictionary_of_which_nothing_fires_is_said(table, subject, maps, capsys):
    silent = table.filter(pl.col("readout_own").is_null())
    of_maps = maps_table(subject, maps)
    _say(transfer_summary(silent), of_maps, [Path("transfer.csv")], as_json=False)
    assert "no feature fired on any row of the store" in capsys.readouterr().out.splitlines()


def test_the_command_writes_its_tables_and_prints_json(
    known_store, dfc_folder, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    transfer(store=known_store.path, dictionary=dfc_folder, out=tmp_path / "tables", as_json=True)
    value = json.loads(capsys.readouterr().out)
    assert [group["features"] for group in value["groups"]] == [1, 2, 1]
    assert [line["from"] for line in value["maps"]] == [A, B]
    assert len(value["files"]) == 6
    assert all(Path(file).exists() for file in value["files"])
