"""`analyze exclusivity --steer` from its options to its tables."""

import json

import polars as pl
import pytest
import yaml
from typer.testing import CliRunner

from analyze.verdict.cli import exclusivity
from analyze.verdict.evidence import STEERING
from pipeline.command import make_app
from train.dictionary.partition import dedicated

from .directed import directed, saved


@pytest.fixture
def run(harvested, tmp_path):
    config, store = harvested
    partition = dedicated(("a", "b"), 24, {"a": 4, "b": 4})
    names = ("a.model.layers.1.out", "b.gpt_neox.layers.1.out")
    dictionary = saved(directed(store, names, partition, 0.1), tmp_path / "dictionary")
    section = {"contexts": 2, "min_fires": 1, "batch_rows": 64, "counterpart": 1.0}
    section |= {"norm_shared": 0.8, "nulls": ["shared"], "fdr": 0.99, "steered_shared": 3}
    raw = {**config.raw, "analyze": section}
    (tmp_path / "pipeline.yaml").write_text(yaml.safe_dump(raw))
    app = make_app("test")
    app.command()(exclusivity)
    app.callback()(lambda: None)

    def call(*words):
        given = ["--config", tmp_path / "pipeline.yaml", "--dictionary", dictionary]
        given += ["--out", tmp_path / "tables", *words]
        done = CliRunner().invoke(app, ["exclusivity", *map(str, given)])
        assert done.exit_code == 0, done.output
        return done

    return call


def test_the_command_steers_when_asked_and_keeps_what_it_found(run, tmp_path, monkeypatch):
    plain = json.loads(run("--json").stdout)
    assert plain["steering"] == []
    steered = json.loads(run("--steer", "--json").stdout)
    assert {line["model"] for line in steered["steering"]} <= {"a", "b"}
    assert steered["steering"]
    table = pl.read_parquet(tmp_path / "tables" / "exclusivity.parquet")
    known = table.filter(pl.col(STEERING).is_not_null())
    assert known.height >= 1
    assert known["p_steering_agreement"].is_between(1 / 4, 1).all()
    assert table["feature"].is_unique().all()
    assert (tmp_path / "tables" / "agreement.parquet").exists()

    def refuse(*_):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("analyze.causal.agreement_run.open_models", refuse)
    assert json.loads(run("--json").stdout)["steering"] == steered["steering"]
    said = run().stdout
    assert "agreement of what steering does" in said
    demanded = run("--set", "analyze.evidence=[readout_ratio, steering_agreement]", "--json")
    found = [one["at 20%"] for one in json.loads(demanded.stdout)["models"]]
    before = [one["at 20%"] for one in plain["models"]]
    assert all(now <= then for now, then in zip(found, before, strict=True))
