"""Every recipe, and combinations that have no name, from pipeline.yaml to a name in Python."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import yaml

from store.reader import Store
from train import Dictionary, MatryoshkaBatchTopKSAE
from train.cli import main
from train.config import RecipeName
from train.dictionary.artifact import describe
from train.names.load import ARCHITECTURE

from .hookpoint_store import write_hookpoint_store

TINY = {
    "features": 24,
    "k": 4,
    "steps": 6,
    "batch_rows": 64,
    "lr": 0.003,
    "warmup_steps": 2,
    "threshold_start": 2,
    "threshold_beta": 0.5,
    "validation_fraction": 0.3,
    "validate_every": 100,
    "checkpoint_every": 100,
    "log_every": 3,
    "p_updates": 2,
}
ONE_MODEL = {
    "standard": "AutoEncoder",
    "gated": "GatedAutoEncoder",
    "topk": "AutoEncoderTopK",
    "batch_topk": "BatchTopKSAE",
    "jump_relu": "JumpReluAutoEncoder",
    "p_anneal": "AutoEncoder",
    "gated_anneal": "GatedAutoEncoder",
    "matryoshka": "MatryoshkaBatchTopKSAE",
}
TWO_MODELS = {
    "dfc": "DedicatedFeatureBatchTopKCrossCoder",
    "residual_dfc": "DedicatedFeatureBatchTopKCrossCoder",
    "batch_topk_crosscoder": "BatchTopKCrossCoder",
    "dsf": "BatchTopKCrossCoder",
    "crosscoder": "CrossCoder",
}
EVERY = {**TWO_MODELS, **ONE_MODEL}
Run = Callable[..., list[Path]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path) -> Run:
    """Writes pipeline.yaml for a store of these hookpoints, types `train run`; the folders."""
    monkeypatch.chdir(tmp_path)

    def call(hookpoints: dict[str, tuple[str, int]], **section: Any) -> list[Path]:
        write_hookpoint_store(tmp_path / "run" / "store.zarr", hookpoints)
        config = {"run_dir": "run", "train": {**TINY, **section}}
        (tmp_path / "pipeline.yaml").write_text(yaml.safe_dump(config))
        monkeypatch.setattr("sys.argv", ["train", "run", "--json"])
        with pytest.raises(SystemExit) as stop:
            main()
        captured = capsys.readouterr()
        assert not stop.value.code, captured.err
        return [tmp_path / entry["folder"] for entry in json.loads(captured.out)]

    return call


def rows_of(dictionary: Dictionary, folder: Path) -> dict[str, torch.Tensor]:
    """The first rows of the store that it was trained on, of the hookpoints that it reads."""
    store = Store(folder.parent / "store.zarr")
    return {name: store.activations(name, 0, 0, 50) for name in dictionary.inputs}


def reconstructs(folder: Path) -> Dictionary:
    """Loads a result by its folder alone and sends rows of its store through it."""
    dictionary = Dictionary.from_pretrained(folder)
    core, rows = dictionary.core, rows_of(dictionary, folder)
    x_hat, f = dictionary(rows, output_features=True)
    assert f.shape == (50, core.partition.features)
    assert 0 < int((f > 0).sum()) < f.numel()
    written = {core.hookpoints[n].name: core.hookpoints[n].width for n in core.outputs}
    assert {name: row.shape for name, row in x_hat.items()} == {
        name: (50, width) for name, width in written.items()
    }
    assert all(bool(row.isfinite().all()) for row in x_hat.values())
    return dictionary


def test_the_lists_here_are_all_recipes():
    assert set(EVERY) == set(get_args(RecipeName))


def test_every_recipe_by_its_name_alone_trains_on_all_models(run):
    folders = run({"a": ("a", 6), "b": ("b", 6)}, recipes=list(EVERY))
    for recipe, folder in zip(EVERY, folders, strict=True):
        dictionary = reconstructs(folder)
        assert dictionary.notes["recipe"] == recipe
        assert {h.name for h in dictionary.core.hookpoints} == {"a", "b"}


def test_every_recipe_of_one_model_is_loaded_under_the_name_that_users_know(run):
    folders = run(
        {"a": ("a", 6), "b": ("b", 9)},
        recipes=[{"recipe": recipe, "hookpoints": ["b"]} for recipe in ONE_MODEL],
    )
    for recipe, folder in zip(ONE_MODEL, folders, strict=True):
        dictionary = reconstructs(folder)
        assert type(dictionary).__name__ == ONE_MODEL[recipe]
        assert dictionary.activation_dim == 9


def test_nested_parts_are_known_afterwards(run):
    folders = run(
        {"a": ("a", 6)},
        recipes=["matryoshka", {"recipe": "batch_topk", "matryoshka": [0.25, 1.0]}],
    )
    found = [reconstructs(folder) for folder in folders]
    assert {type(dictionary) for dictionary in found} == {MatryoshkaBatchTopKSAE}
    # 1/32, 3/32, 7/32, 15/32 and all of 24 features, rounded: 1, 2, 5, 11, 24
    sizes = [[1, 1, 3, 6, 13], [6, 18]]
    assert [dictionary.notes["group_sizes"] for dictionary in found] == sizes


def test_the_recipes_of_two_models_are_loaded_under_the_names_that_users_know(run):
    folders = run({"a": ("a", 6), "b": ("b", 6)}, recipes=list(TWO_MODELS))
    found = [type(reconstructs(folder)).__name__ for folder in folders]
    assert found == list(TWO_MODELS.values())


def test_a_sweep_trains_every_combination(run):
    folders = run({"a": ("a", 6), "b": ("b", 5)}, sweep={"k": [2, 3], "lr": [0.001, 0.01]})
    trained = [reconstructs(folder) for folder in folders]
    settings = [(one.k, one.notes["train"]["lr"]) for one in trained]
    assert settings == [(2, 0.001), (2, 0.01), (3, 0.001), (3, 0.01)]


EXCLUSIVE = {"a": 0.25, "b": 0.125}
SIZES = [("a", 6), ("shared", 15), ("b", 3)]


@pytest.mark.parametrize("activation", ["jump_relu", "gated", "relu", "topk"])
def test_a_dfc_of_another_activation(run, activation):
    (folder,) = run({"a": ("a", 6), "b": ("b", 5)}, activation=activation, exclusive=EXCLUSIVE)
    dictionary = reconstructs(folder)
    assert dictionary.core.activation.kind == activation
    assert [(group.name, group.size) for group in dictionary.partition.groups] == SIZES
    assert [W.shape for W in dictionary.core.W_dec.values()] == [(21, 6), (18, 5)]


def test_a_matryoshka_dfc_is_nested_in_every_group(run):
    (folder,) = run({"a": ("a", 6), "b": ("b", 5)}, exclusive=EXCLUSIVE, matryoshka=[0.5, 1.0])
    dictionary = reconstructs(folder)
    assert [(group.name, group.size) for group in dictionary.partition.groups] == SIZES
    assert dictionary.notes["train"]["matryoshka"] == [0.5, 1.0]
    assert "group_sizes" not in dictionary.notes  # nested parts are not consecutive features


def test_a_dfc_of_three_models(run):
    hookpoints = {name: (name, width) for name, width in [("a", 6), ("b", 5), ("c", 4)]}
    (folder,) = run(hookpoints, exclusive={**EXCLUSIVE, "c": 0.25})
    dictionary = reconstructs(folder)
    groups = [(group.name, group.models, group.size) for group in dictionary.partition.groups]
    assert groups == [
        ("a", ("a",), 6),
        ("shared", ("a", "b", "c"), 9),
        ("b", ("b",), 3),
        ("c", ("c",), 6),
    ]
    assert [W.shape for W in dictionary.core.W_enc.values()] == [(15, 6), (12, 5), (15, 4)]


def test_a_dfc_of_several_hookpoints_per_model(run):
    hookpoints = {"a.1": ("a", 6), "a.2": ("a", 6), "b.1": ("b", 5), "b.9": ("b", 5)}
    (folder,) = run(hookpoints, exclusive=EXCLUSIVE)
    dictionary = reconstructs(folder)
    assert [(group.name, group.size) for group in dictionary.partition.groups] == SIZES
    shapes = [W.shape for W in dictionary.core.W_dec.values()]
    assert shapes == [(21, 6), (21, 6), (18, 5), (18, 5)]


@pytest.mark.parametrize("recipe", ["batch_topk", "jump_relu", "matryoshka"])
def test_a_transcoder_reads_one_hookpoint_and_writes_another(run, recipe):
    (folder,) = run(
        {"mlp.in": ("a", 6), "mlp.out": ("a", 8)},
        recipes=[recipe],
        encoder_hookpoints=["mlp.in"],
        decoder_hookpoints=["mlp.out"],
    )
    dictionary = reconstructs(folder)
    roles = [(h.name, h.reads, h.writes) for h in dictionary.core.hookpoints]
    assert roles == [("mlp.in", True, False), ("mlp.out", False, True)]


def test_a_dfc_may_encode_fewer_hookpoints_than_it_decodes(run):
    hookpoints = {"a.1": ("a", 6), "a.2": ("a", 6), "b.1": ("b", 5), "b.2": ("b", 5)}
    (folder,) = run(hookpoints, exclusive=EXCLUSIVE, encoder_hookpoints=["a.1", "b.1"])
    dictionary = reconstructs(folder)
    assert (len(dictionary.core.inputs), len(dictionary.core.outputs)) == (2, 4)


def test_a_trained_dictionary_knows_its_figures(run):
    (folder,) = run({"a": ("a", 6), "b": ("b", 6)})
    found = json.loads((folder / "config.json").read_text())["figures"]
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    validation = lines[-1]["validation"]
    assert found == {
        "dead_fraction": lines[-1]["dead_fraction"],
        **{key: validation[key] for key in ("fve", "l0", "loss", "rows")},
    }
    assert set(found["fve"]) == {"a", "b"}
    dictionary = Dictionary.from_pretrained(folder)
    dictionary.save_pretrained(folder.parent / "copy")
    again = Dictionary.from_pretrained(folder.parent / "copy")
    assert again.notes == dictionary.notes


def test_without_held_out_rows_only_dead_features_are_known(run):
    (folder,) = run({"a": ("a", 6), "b": ("b", 6)}, validation_fraction=0)
    assert set(json.loads((folder / "config.json").read_text())["figures"]) == {"dead_fraction"}


def test_every_key_of_an_architecture_is_known_to_be_one():
    core = MatryoshkaBatchTopKSAE(6, 8, 2, [2, 6]).core
    assert set(describe(core)) | {"format", "version"} == ARCHITECTURE
