"""Caches for Delphi, read back by what its documentation says of them, beside a dense reference."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from analyze.export.delphi import DelphiSpec, export_delphi
from analyze.export.shards import edges_of
from pipeline.errors import ConfigError, StoreError
from store.sweep import read_range

CTX, SEPARATOR = 16, 77
EVERY = tuple(range(20))


def spec(features=EVERY, **changes) -> DelphiSpec:
    fields = {"model": "a", "model_name": "some/model", "ctx_len": CTX} | changes
    return DelphiSpec(features=np.array(features), **fields)


def export(subject, root: Path, **changes):
    return export_delphi(subject, spec(**changes), root, batch_rows=9)


def as_delphi_reads(folder: Path) -> tuple[dict[int, list[tuple[int, int, float]]], np.ndarray]:
    """Entries by feature, and tokens, of the files of one hookpoint.

    By name FIRST_LAST; `locations` hold sequence, position, and feature less FIRST; of one feature
    they must be in order, because windows are taken to be runs of successive entries.
    """
    files = sorted(folder.glob("*.safetensors"), key=lambda file: int(file.stem.split("_")[0]))
    entries, tokens, following = {}, None, 0
    for file in files:
        first, last = map(int, file.stem.split("_"))
        assert first == following  # a feature's file is found by the edges: without gaps
        following = last + 1
        held = load_file(file)
        assert held["locations"].dtype == np.uint32
        tokens = held["tokens"].astype(np.int64) if tokens is None else tokens
        np.testing.assert_array_equal(held["tokens"], tokens)
        locations = held["locations"].astype(np.int64)
        assert (locations[:, 2] <= last - first).all()
        for (sequence, place, feature), value in zip(
            locations.tolist(), held["activations"].tolist(), strict=True
        ):
            entries.setdefault(first + feature, []).append((sequence, place, value))
    for found in entries.values():
        assert found == sorted(found)
    return entries, tokens


def dense_codes(subject) -> np.ndarray:
    """relu(W_enc x + b) of every row, (rows, features), in float64."""
    dictionary, rows = subject.dictionary, subject.store.rows
    x = read_range(subject.store, 0, rows).activations
    pre = dictionary.b_enc.detach().double().repeat(rows, 1)
    for number, hookpoint in enumerate(dictionary.hookpoints):
        seen = dictionary.visibility(number).features_V
        pre[:, seen] += x[hookpoint.name].double() @ dictionary.W_enc[str(number)].double().T
    return pre.relu().detach().numpy()


def laid_out(store, model: str, separator: int | None) -> tuple[list[int], list[int | None]]:
    """Token and row at every position, written out document by document."""
    tokens, rows, previous = [], [], None
    ids, documents = store.column(f"token_{model}"), store.column("document")
    for row in range(store.rows):
        if separator is not None and previous is not None and documents[row] != previous:
            tokens.append(separator)
            rows.append(None)
        tokens.append(int(ids[row]))
        rows.append(row)
        previous = documents[row]
    return tokens, rows


@pytest.mark.parametrize("separator", [None, SEPARATOR])
@pytest.mark.parametrize("model", ["a", "b"])
@pytest.mark.parametrize("splits", [1, 3, 50])
def test_a_cache_has_every_activation_at_its_token(
    uneven_subject, tmp_path, separator, model, splits
):
    done = export(uneven_subject, tmp_path / "out", model=model, separator=separator, splits=splits)
    entries, tokens = as_delphi_reads(tmp_path / "out" / f"{model}.mid.out")
    expected_tokens, rows = laid_out(uneven_subject.store, model, separator)
    whole = len(rows) // CTX
    assert tokens.tolist() == np.reshape(expected_tokens[: whole * CTX], (whole, CTX)).tolist()
    assert done.sequences.left_out == len(rows) - whole * CTX
    codes = dense_codes(uneven_subject)
    found = np.zeros((whole * CTX, 20))
    for feature, of_feature in entries.items():
        for sequence, place, value in of_feature:
            found[sequence * CTX + place, feature] = value
    expected = np.stack([np.zeros(20) if row is None else codes[row] for row in rows])
    np.testing.assert_allclose(found, expected[: whole * CTX], rtol=1e-5, atol=1e-5)
    assert done.entries == sum(map(len, entries.values()))
    assert (found[:, 19] > 0).sum() == sum(row is not None for row in rows[: whole * CTX])
    assert 0 not in entries


def test_only_chosen_features_are_exported_and_files_share_them_evenly(uneven_subject, tmp_path):
    done = export(uneven_subject, tmp_path / "out", features=[1, 2, 3, 15, 16, 19], splits=3)
    assert [file.name for file in done.files] == [
        *("0_2.safetensors", "3_15.safetensors", "16_19.safetensors"),
        "config.json",
    ]
    entries, _ = as_delphi_reads(tmp_path / "out" / "a.mid.out")
    assert set(entries) == {1, 2, 3, 15, 16, 19}
    fires = (dense_codes(uneven_subject)[:, [1, 2, 3, 15, 16, 19]] > 0).sum(axis=0)
    assert done.rare == (fires < 200).sum()


def test_the_config_names_what_delphi_asks_for(uneven_subject, tmp_path):
    export(uneven_subject, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "a.mid.out" / "config.json").read_text())
    assert config["model_name"] == "some/model"
    assert config["cache_ctx_len"] == config["ctx_len"] == CTX
    assert config["n_tokens"] % CTX == 0
    assert {"dataset_repo", "dataset_split", "dataset_name", "dataset_column"} <= config.keys()


def test_a_second_export_replaces_the_first_as_a_whole(uneven_subject, tmp_path):
    root = tmp_path / "out"
    export(uneven_subject, root, splits=5)
    export(uneven_subject, root, splits=2, features=[7, 8])
    assert sorted(file.name for file in (root / "a.mid.out").iterdir()) == [
        *("0_7.safetensors", "8_19.safetensors", "config.json"),
    ]
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_an_export_that_dies_leaves_the_one_before(uneven_subject, tmp_path):
    root = tmp_path / "out"
    export(uneven_subject, root)
    before = {file.name: file.read_bytes() for file in (root / "a.mid.out").iterdir()}

    def dies(rows):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_delphi(uneven_subject, spec([3]), root, 9, dies)
    assert {file.name: file.read_bytes() for file in (root / "a.mid.out").iterdir()} == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("name", ["b.mid.out", "a.mid.out", "notes.txt"])
def test_a_folder_with_something_else_in_it_is_refused_and_kept(uneven_subject, tmp_path, name):
    (tmp_path / "out" / name).mkdir(parents=True)
    (tmp_path / "out" / name / "mine").write_text("kept")
    with pytest.raises(ConfigError, match=r"--out: .*name a new"):
        export(uneven_subject, tmp_path / "out")
    assert (tmp_path / "out" / name / "mine").read_text() == "kept"


def test_rows_that_do_not_fill_a_sequence_are_said(uneven_subject, tmp_path):
    with pytest.raises(StoreError, match="do not fill one sequence of 10000; give a smaller"):
        export(uneven_subject, tmp_path / "out", ctx_len=10000)


def test_a_store_without_token_ids_is_refused(uneven_subject, tmp_path, monkeypatch):
    nothing = np.zeros(32, np.int32)  # as an import writes it for a model without ids
    monkeypatch.setattr(uneven_subject.store, "column_chunk", lambda name, chunk: nothing)
    with pytest.raises(StoreError, match="no token ids of model a"):
        export(uneven_subject, tmp_path / "out")


def test_torch_reads_the_files_too(uneven_subject, tmp_path):
    from safetensors.torch import load_file as load_torch

    export(uneven_subject, tmp_path / "out", splits=1)
    held = load_torch(tmp_path / "out" / "a.mid.out" / "0_19.safetensors")
    assert held["activations"].dtype == torch.float32
    assert held["locations"].shape == (len(held["activations"]), 3)


@given(st.sets(st.integers(0, 99), min_size=1), st.integers(1, 30))
@settings(max_examples=60, deadline=None)
def test_files_follow_each_other_and_hold_about_as_many_features(features, splits):
    chosen = np.array(sorted(features))
    edges = edges_of(chosen, 100, splits)
    assert edges[0] == 0
    assert edges[-1] == 100
    counts, _ = np.histogram(chosen, edges)
    assert len(counts) == min(splits, len(chosen))
    assert counts.max() - counts.min() <= 1
