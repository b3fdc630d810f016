"""The table of latent scaling, its summary and pictures; test_scaling.py has the numbers."""

import json
from pathlib import Path

import polars as pl
import pytest

from analyze.scaling_cli import _say
from analyze.scaling_plots import scaling_figure, scaling_png
from analyze.scaling_table import scaling_summary, scaling_table
from analyze.statistics.latent_scaling import LatentScaling
from analyze.subject import open_subject
from analyze.sweep.gather import gather

from .conftest import A, B
from .test_cli import _analyze


def _table(store, folder, batch_rows):
    subject = open_subject(store, folder)
    sums = LatentScaling(subject, batch_rows)
    gather(subject, [sums], batch_rows)
    return scaling_table(subject.dictionary, sums)


@pytest.fixture(scope="module")
def table(known_store, dfc_folder) -> pl.DataFrame:
    return _table(known_store, dfc_folder, 7)


def equal_widths() -> pl.DataFrame:
    """What a table of a crosscoder of two equally wide models looks like."""
    numbers = {"beta_eps_own": 1.0, "beta_eps_other": 0.1, "beta_r_own": 1.0, "beta_r_other": 0.1}
    return pl.DataFrame(
        {
            "feature": [0, 1, 2, 3],
            "group": ["a", "shared", "shared", "b"],
            "claimed_for": ["a", "a", "b", "b"],
            "nu_eps": [0.1, 0.1, 0.9, None],
            "nu_r": [0.1, 0.9, 0.1, None],
            "specific": [True, False, False, None],
            "direction": pl.Series([None] * 4, dtype=pl.Float64),
            "null_direction": pl.Series([None] * 4, dtype=pl.Float64),
        }
    ).with_columns(
        pl.when(pl.col("nu_eps").is_not_null()).then(value).alias(name)
        for name, value in numbers.items()
    )


def test_every_feature_has_one_line_for_the_model_it_is_claimed_for(table):
    assert table["feature"].to_list() == list(range(7))
    lines = {line["feature"]: line for line in table.to_dicts()}
    assert lines[0]["own_hookpoint"] == A
    assert lines[0]["other_hookpoint"] == B
    assert lines[5]["claimed_for"] == "b"


def test_widths_that_differ_have_directions_and_no_nus(table):
    fired = table.filter(pl.col("beta_eps_own").is_not_null())
    assert fired["feature"].to_list() == [0, 2, 3, 5]
    assert fired["direction"].null_count() == 0
    assert table["nu_eps"].null_count() == len(table)
    assert table["specific"].null_count() == len(table)
    # The dictionary decodes both models exactly: the residual has nothing more of any feature.
    assert fired["direction"].max() < 0.01
    assert fired["beta_eps_own"].to_list() == pytest.approx([1.0] * 4, abs=0.01)


def test_the_batch_size_plays_no_part_but_in_the_null(known_store, dfc_folder, table):
    other = _table(known_store, dfc_folder, 50)
    for name in ("beta_eps_own", "beta_r_own", "direction"):
        wanted = table[name].drop_nulls().to_list()
        assert other[name].drop_nulls().to_list() == pytest.approx(wanted, rel=1e-4, abs=1e-6)


def test_the_summary_counts_what_is_specific_and_why_the_rest_is_not():
    found = {(r["claimed_for"], r["group"]): r for r in scaling_summary(equal_widths()).to_dicts()}
    assert found["a", "a"]["specific"] == 1
    assert (found["a", "shared"]["specific"], found["a", "shared"]["decoupled"]) == (0, 1)
    assert (found["b", "shared"]["shrunk"], found["b", "shared"]["decoupled"]) == (1, 0)
    assert ("b", "b") not in found  # never fired


def test_the_summary_says_nothing_of_what_is_not_known(table):
    summary = scaling_summary(table)
    assert summary["specific"].null_count() == len(summary)
    assert summary["median_direction"].null_count() == 0


@pytest.mark.parametrize("widths", ["equal", "different"])
def test_pictures_have_what_fired_by_group(widths, table, tmp_path):
    shown = equal_widths() if widths == "equal" else table
    scaling_png(shown, ("a", "b"), tmp_path / "scaling.png")
    assert (tmp_path / "scaling.png").read_bytes()[:4] == b"\x89PNG"
    names = [trace.name for trace in scaling_figure(shown, ("a", "b")).data]
    assert names == (["a", "shared"] if widths == "equal" else ["a", "shared", "b", "null"])


def test_a_dictionary_of_which_nothing_fires_is_said(table, capsys):
    silent = scaling_summary(table.filter(pl.col("beta_eps_own").is_null()))
    _say(silent, [Path("scaling.csv")], as_json=False)
    assert capsys.readouterr().out.splitlines()[0] == "no feature fired on any row of the store"


def test_the_command_writes_its_files_and_prints_json(known_store, dfc_folder, tmp_path):
    done = _analyze(
        "scaling", "--store", known_store.path, "--dictionary", dfc_folder, "--out", "tables",
        "--json", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    assert [group["features"] for group in value["groups"]] == [1, 2, 1]
    assert all((tmp_path / file).exists() for file in value["files"])
