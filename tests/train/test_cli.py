"""`train run` as a user types it."""

import json
import os
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from store.part import read_part, write_part
from store.reader import Store
from store.root import begin_store
from store.schema import part_path
from train.cli import main
from train.config import RecipeName

from .conftest import tiny

SETTINGS = [
    part
    for key, value in tiny(steps=20, threshold_start=1)
    for part in ("--set", f"train.{key}={json.dumps(value, default=lambda v: v.model_dump())}")
]


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Types `train run ...`, or another command, in an empty folder; exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str | Path, command: str = "run") -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["train", command, *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        captured = capsys.readouterr()
        return int(stop.value.code or 0), captured.out, captured.err

    return call


def test_a_model_that_is_not_there_cannot_have_a_weight(run, store_path):
    code, _, err = run("--store", store_path, *SETTINGS, "--set", "train.model_weights={z: 2.0}")
    assert code == 1
    assert "train.model_weights: unknown model 'z'; the models are a, b" in err


def test_a_batch_of_more_rows_than_there_are_is_said(run, store_path):
    rows = ["--set", "train.batch_rows=4096", "--set", "train.steps=2"]
    _, _, err = run("--store", store_path, *SETTINGS, *rows, "--set", "train.threshold_start=0")
    assert "a batch of 4,096 rows is more than the" in " ".join(err.split())


def test_a_run_says_where_the_dictionary_is_and_what_comes_next(run, store_path):
    code, out, _ = run("--store", store_path, "--out", "here/dictionary", *SETTINGS)
    assert code == 0
    assert out.startswith("here/dictionary: dfc: held-out FVE a ")
    expected = f"--store {store_path} --dictionary here/dictionary --out here"
    assert out.splitlines()[-1].startswith("next: analyze report --set ")
    assert out.splitlines()[-1].endswith(expected)
    assert Path("here/dictionary/model.safetensors").exists()


def test_what_comes_next_is_said_with_the_options_of_the_run(run, store_path):
    Path("my run").mkdir()
    Path("my run", "store.zarr").symlink_to(store_path)
    Path("my sae.yaml").write_text('run_dir: "my run"\n')
    code, out, _ = run("--config", "my sae.yaml", *SETTINGS, "--set", "analyze.top_features=3")
    assert code == 0
    words = shlex.split(out.splitlines()[-1])
    assert words[:7] == ["next:", "analyze", "report", "--config", "my sae.yaml", *SETTINGS[:2]]
    assert words[-2:] == ["--set", "analyze.top_features=3"]


def test_a_run_without_held_out_rows_says_so(run, store_path):
    code, out, _ = run("--store", store_path, *SETTINGS, "--set", "train.validation_fraction=0")
    assert code == 0
    assert out.startswith("runs/default/dictionary: dfc: no held-out rows; dead ")


def test_the_name_of_an_incomplete_store_is_printed_as_it_is(run, store_path, tmp_path):
    path = tmp_path / "[red]store"
    shutil.copytree(store_path, path)
    part = part_path(path, 0)
    schema = Store(path).schema
    write_part(part, schema, replace(read_part(part, schema), complete=False))
    given = ("--store", path.name, "--out", "dictionary", *SETTINGS)
    code, _, err = run(*given)
    assert code == 1
    assert "error: [red]store: not complete; finish it with `harvest run`, or go on" in err
    assert not Path("dictionary").exists()
    code, _, err = run(*given, "--set", "train.incomplete_store=true")
    assert code == 0
    assert "note: [red]store: not complete; going on with its" in err


def test_a_part_that_is_missing_is_named(run, store_path, tmp_path):
    source = Store(store_path)
    schema = replace(source.schema, parts=3)
    begin_store(tmp_path / "three", schema)
    for number in (0, 2):
        shutil.copytree(part_path(store_path, 0), part_path(tmp_path / "three", number))
        state = read_part(part_path(store_path, 0), source.schema)
        write_part(part_path(tmp_path / "three", number), schema, state)
    code, _, err = run("--store", "three", "--out", "dictionary", *SETTINGS)
    assert code == 1
    said = " ".join(err.split())
    assert "three: not complete: task 1 of 3 missing; finish it with" in said
    assert "`harvest run --task 1 --of 3` (or `sbatch --array=1`), or go on with the" in said
    assert f"{2 * source.rows:,} rows that it has: --set train.incomplete_store=true" in said


def test_a_window_that_outgrows_the_machine_is_named_with_its_remedy(run, store_path, monkeypatch):
    monkeypatch.setattr(os, "sysconf", lambda name: 100)
    code, _, err = run("--store", store_path, "--out", "dictionary", *SETTINGS)
    assert code == 0
    assert "this machine has 0.0 GB" in err
    assert "lower train.window_chunks" in err


def test_the_plan_states_what_the_loader_shuffles_over(run, store_path):
    code, out, _ = run("--store", store_path, "--dry-run", *SETTINGS)
    assert code == 0
    assert "the loader shuffles over 0.0 GB of memory at a time" in out


@pytest.mark.parametrize("config", ["models: {a: {path: x, hookpoint: y}}", ""])
def test_checking_refuses_a_share_for_a_model_that_the_configuration_lacks(run, config):
    Path("sae.yaml").write_text(config)
    code, _, err = run("--config", "sae.yaml", "--check", "--set", "train.exclusive={z: 0.1}")
    if config:
        assert code == 1
        assert "train.exclusive: unknown model 'z'; the models are a" in err
    else:
        assert code == 0


def test_checking_refuses_residuals_of_models_that_are_not_two(run):
    three = "".join(f"  {name}: {{path: x, hookpoint: y}}\n" for name in "abc")
    Path("three.yaml").write_text(f"models:\n{three}")
    words = ("--config", "three.yaml", "--check", "--set")
    code, _, err = run(*words, "train.recipes=[dfc, residual_dfc]")
    assert code == 1
    assert "train.residual: needs two models with as many hookpoints each" in err
    chosen = "train.recipes=[dfc, {recipe: residual_dfc, hookpoints: [a, c]}]"
    assert run(*words, chosen)[0] == 0


def test_json_of_a_run_parses(run, store_path):
    code, out, _ = run("--store", store_path, "--out", "dictionary", "--json", *SETTINGS)
    (entry,) = json.loads(out)
    assert code == 0
    assert set(entry) == {*("recipe", "folder", "fve", "l0", "loss", "dead_fraction", "best")}


def test_a_dry_run_states_rows_bytes_and_time_and_writes_nothing(run, store_path, tmp_path):
    before = sorted(store_path.rglob("*"))
    code, out, _ = run("--store", store_path, "--dry-run", *SETTINGS)
    assert code == 0
    assert "20 steps of 64 rows = 1,280 rows" in out
    assert "MB under runs/default/dictionary" in out
    assert "minutes here" in out
    assert list(tmp_path.iterdir()) == []
    assert sorted(store_path.rglob("*")) == before


def test_json_of_a_dry_run_parses(run, store_path):
    code, out, _ = run("--store", store_path, "--dry-run", "--json", *SETTINGS)
    plan = json.loads(out)
    assert code == 0
    assert plan["rows_trained"] == 1280
    assert plan["parameters"] == 2 * 32 * (12 + 20) + 40 + 12 + 20
    assert plan["seconds"] > 0


def test_a_dry_run_names_every_dictionary_with_its_size(run, store_path):
    recipes = "train.recipes=[dfc, {recipe: jump_relu, name: thin, hookpoints: [a], features: 16}]"
    words = ("--store", store_path, "--dry-run", *SETTINGS, "--set", recipes)
    code, out, _ = run(*words)
    assert code == 0
    # weights W_enc and W_dec of what a model sees, b_enc, b_dec, a jump_relu's thresholds
    sizes = [2 * 32 * (12 + 20) + 40 + 12 + 20, 2 * 16 * 12 + 2 * 16 + 12]
    lines = out.splitlines()
    assert lines[:2] == [
        f"runs/default/dictionary: dfc: 40 features, {sizes[0]:,} parameters; "
        f"{4 * sizes[0] / 1e6:.2f} MB of weights, {8 * sizes[0] / 1e6:.2f} MB of optimizer",
        f"runs/default/dictionary-thin: thin (jump_relu): 16 features, {sizes[1]:,} parameters; "
        f"{4 * sizes[1] / 1e6:.2f} MB of weights, {8 * sizes[1] / 1e6:.2f} MB of optimizer",
    ]
    assert lines[2].startswith("would train each for 20 steps of 64 rows = 1,280 rows (0.7 epochs")
    _, out, _ = run(*words, "--json")
    found = json.loads(out)["dictionaries"]
    assert [(one["name"], one["parameters"], one["weight_bytes"]) for one in found] == [
        ("dfc", sizes[0], 4 * sizes[0]),
        ("thin", sizes[1], 4 * sizes[1]),
    ]
    # Adam's two moments; its step counts are a few bytes more
    assert [one["optimizer_bytes"] // 100 for one in found] == [8 * n // 100 for n in sizes]


def test_the_bytes_of_a_dry_run_are_those_of_the_run(run, store_path):
    _, out, _ = run("--store", store_path, "--dry-run", "--json", *SETTINGS)
    run("--store", store_path, "--out", "dictionary", *SETTINGS)
    written = sum(f.stat().st_size for f in Path("dictionary").rglob("*.safetensors"))
    assert json.loads(out)["checkpoint_bytes"] == pytest.approx(written, rel=0.2)


def test_checking_needs_no_store_and_says_nothing(run):
    assert run("--check", *SETTINGS) == (0, "", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "train.featurs=9"], "--set: train.featurs: unknown key (given 9); did you mean"),
        (["--set", "train.k=many"], "--set: train.k: given 'many'; input should be a valid int"),
        (
            ["--set", "train.exclusive={a: 1.5}"],
            "given {'a': 1.5}; a: 1.5 is neither a share, from",
        ),
        (["--set", "train.exclusive={a: -2}"], "given {'a': -2}; a: -2 is neither a share, from"),
        (["--set", "train.k=0"], "--set: train.k: given 0; input should be greater than 0"),
        (["--set", "train.wandb.mode=on"], "--set: train.wandb.mode: given True"),
        (["--set", "train.k=9", "--set", "train.features=2"], "--set: train.k: given 9; "),
        (["--set", "train.recipes=[sae]"], "train.recipes: given ['sae']; recipe 'sae' is unknown"),
        (["--store", "nowhere"], "nowhere/zarr.json: no such file"),
        (["--config", "nowhere.yaml"], "nowhere.yaml: no such file"),
    ],
)
def test_a_mistake_is_explained_in_one_line(run, arguments, message):
    code, out, err = run(*arguments)
    assert (code, out) == (1, "")
    assert message in err
    assert len(err.splitlines()) == 1


def test_a_recipe_that_is_not_known_is_answered_with_those_that_are(run):
    code, _, err = run("--set", "train.recipes=[{recipe: sae, k: 3}]")
    assert code == 1
    names = err.split("recipe 'sae' is unknown; try ")[1].strip().split(", ")
    assert names == list(get_args(RecipeName))


@pytest.mark.parametrize(
    ("command", "words", "message"),
    [
        ("import", ["nowhere.pt", "--out", "own"], "nowhere.pt: no such file or folder"),
        ("export", ["nowhere", "--out", "x", "--format", "sae_lens"], "config.json: no such file"),
        ("export", ["nowhere", "--out", "x", "--format", "onnx"], "--format onnx: known are"),
        ("push", ["nowhere", "someone/name"], "nowhere/config.json: no such file; train"),
    ],
)
def test_a_mistake_in_bringing_in_and_out_is_explained_in_one_line(run, command, words, message):
    code, out, err = run(*words, command=command)
    assert (code, out) == (1, "")
    assert message in err
    assert len(err.splitlines()) == 1


def test_an_unknown_model_in_exclusive_is_refused(run, store_path):
    code, _, err = run("--store", store_path, *SETTINGS, "--set", "train.exclusive={z: 0.1}")
    assert code == 1
    assert "train.exclusive: unknown model 'z'; the models are a, b" in err


def test_going_on_with_another_rate_is_refused_in_one_line(run, store_path):
    arguments = ("--store", store_path, "--out", "dictionary", *SETTINGS)
    run(*arguments)
    code, out, err = run(*arguments, "--set", "train.lr=1e-3")
    assert (code, out) == (1, "")
    (line,) = [line for line in err.splitlines() if line.strip()]
    assert "step_00000020: was written with lr 0.003, now 0.001; restore it, or start over" in line


def test_help_explains_every_key_with_its_default(run):
    code, out, _ = run("--help")
    assert code == 0
    for key in ("features", "threshold_beta", "window_chunks", "wandb"):
        assert key in out


def test_help_shows_a_default_that_is_a_list(run):
    code, out, _ = run("--help")
    assert code == 0
    assert "recipes (default [dfc])" in out
