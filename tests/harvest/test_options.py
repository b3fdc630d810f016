"""What the keys of the configuration change in the store that a harvest writes."""

import json
import os
import shutil
import subprocess
import sys
from collections import namedtuple

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file

from harvest.estimate import estimate
from harvest.produce import OUTLIERS
from harvest.run import harvest
from harvest.settings import Settings
from harvest.status import status
from harvest.tasks import WHOLE, Task
from pipeline.config import Config
from pipeline.errors import CorpusError, ModelError, StoreError
from store.reader import Store
from store.verify import verify

HOOKPOINTS = {"a": "model.layers.1", "b": "gpt_neox.layers.1"}


@pytest.fixture
def settings(model_pair, corpus_file, tmp_path):
    """Settings for the two small models with some keys changed."""

    def make(run_dir="run", models=None, corpus=None, **harvest) -> Settings:
        chosen = models or {name: {} for name in model_pair}
        raw = {
            "run_dir": str(tmp_path / run_dir),
            "models": {
                name: {
                    "path": str(model_pair[name[0]]),
                    "hookpoint": HOOKPOINTS[name[0]],
                    "dtype": "float32",
                    "device": "cpu",
                    **more,
                }
                for name, more in chosen.items()
            },
            "corpus": corpus or {"path": str(corpus_file), "label_column": "domain"},
            "harvest": {"max_tokens": 48, "block_documents": 8, "batch_tokens": 400, **harvest},
            "store": {"chunk_rows": 128},
        }
        return Settings.read(Config("test.yaml", raw))

    return make


def rows_of(store: Store) -> dict[str, np.ndarray]:
    """Every row column and activation of a store."""
    columns = {name: store.column(name) for name in store.schema.row_columns}
    for hookpoint in store.schema.hookpoints:
        chunks = [store.activations(hookpoint.name, chunk) for chunk in range(store.chunks)]
        columns[hookpoint.name] = torch.cat(chunks).float().numpy()
    return columns


def harvested(settings: Settings, task: Task = WHOLE) -> Store:
    harvest(settings, task)
    return Store(settings.path)


@pytest.mark.parametrize("wanted", [1, 150, 333])
def test_a_harvest_stops_exactly_at_the_rows_wanted(settings, wanted):
    whole = rows_of(harvested(settings()))
    store = harvested(settings("cut", rows=wanted))
    assert store.complete
    assert store.rows == wanted
    for name, values in rows_of(store).items():
        np.testing.assert_array_equal(values, whole[name][:wanted])
    assert verify(store.path).problems == []
    assert len(store.documents) == store.column("document")[-1] + 1


def test_more_rows_than_there_are_is_the_whole_corpus(settings):
    assert harvested(settings("much", rows=10**6)).rows == harvested(settings()).rows


def test_tasks_share_the_documents_and_a_store_is_complete_with_the_last(settings, corpus_file):
    texts = pl.read_parquet(corpus_file)["text"].to_list()
    made = settings()
    for index in (2, 0):
        summary = harvest(made, Task(index, 3))
    assert summary.missing == [1]
    store = Store(made.path)
    assert not store.complete
    assert [task.state for task in status(made.path).tasks] == ["complete", "not begun", "complete"]
    with pytest.raises(StoreError, match="parts: store has 3, now 2"):
        harvest(made, Task(1, 2))
    store = harvested(made, Task(1, 3))
    assert store.complete
    assert verify(made.path).problems == []
    found = [store.documents.text(number) for number in range(len(store.documents))]
    assert sorted(found) == sorted(texts)
    assert all(part.document_count for part in store.parts)
    assert store.rows == harvested(settings("one")).rows
    assert status(made.path).complete


def test_the_rows_wanted_are_shared_by_the_tasks(settings):
    made = settings(rows=101)
    stores = [harvested(made, Task(index, 2)) for index in range(2)]
    assert [part.rows for part in stores[-1].parts] == [51, 50]


def test_every_place_of_a_model_is_a_hookpoint_of_the_store(settings):
    places = ["resid_post.1", "mlp_in.1", "mlp_out.1", "heads.0", "head.0.2"]
    store = harvested(settings(models={"a": {"hookpoint": places}, "b": {}}))
    names = [hookpoint.name for hookpoint in store.schema.hookpoints]
    assert names == [
        "a.model.layers.1.out",
        "a.model.layers.1.mlp.in",
        "a.model.layers.1.mlp.out",
        "a.model.layers.0.self_attn.o_proj.in",
        "a.model.layers.0.self_attn.o_proj.in.head2",
        "b.gpt_neox.layers.1.out",
    ]
    rows = rows_of(store)
    heads = rows["a.model.layers.0.self_attn.o_proj.in"]
    np.testing.assert_array_equal(heads[:, 16:24], rows[f"{names[3]}.head2"])
    alone = rows_of(harvested(settings("alone")))
    np.testing.assert_array_equal(rows["a.model.layers.1.out"], alone["a.model.layers.1.out"])


def test_three_models_share_the_rows_where_all_have_a_token_end(settings):
    both = harvested(settings())
    three = harvested(
        settings("three", models={"a": {}, "b": {}, "b2": {"hookpoint": "mlp_out.0"}})
    )
    assert three.schema.models == ("a", "b", "b2")
    assert three.rows == both.rows
    np.testing.assert_array_equal(three.column("token_b"), three.column("token_b2"))


def test_what_is_left_out_is_counted_and_the_rest_is_unchanged(settings):
    whole = rows_of(harvested(settings()))
    made = settings("less", skip_first=3, skip_special=True, outlier_norm=1.3)
    summary = harvest(made)
    store = Store(made.path)
    assert set(summary.left_out) == {"rows among the first positions", OUTLIERS}
    assert store.rows + sum(summary.left_out.values()) == len(whole["document"])
    assert verify(made.path).problems == []
    less = rows_of(store)
    keys = [(whole["document"][i], whole["char_end"][i]) for i in range(len(whole["document"]))]
    place = {key: index for index, key in enumerate(keys)}
    kept = [place[key] for key in zip(less["document"], less["char_end"], strict=True)]
    for name, values in less.items():
        np.testing.assert_array_equal(values, whole[name][kept])


def test_a_weighted_corpus_keeps_each_documents_source(settings, corpus_file, tmp_path):
    (tmp_path / "notes.txt").write_text("one line\nanother line\n")
    corpus = {
        "sources": {
            "stories": {"path": str(corpus_file), "limit": 6, "weight": 2},
            "notes": {"path": str(tmp_path / "notes.txt"), "format": "lines"},
        }
    }
    store = harvested(settings(corpus=corpus))
    documents = store.documents
    names = [documents.source_names[source] for source in documents.sources]
    assert sorted(names) == ["notes"] * 2 + ["stories"] * 6
    assert sorted(names[:3]) == ["notes", "stories", "stories"]
    at = names.index("notes")
    assert documents.text(at) == "one line"
    assert set(store.schema.fingerprints) == {
        "models.a",
        "models.b",
        "corpus.stories",
        "corpus.notes",
    }


def run(config, text: str) -> subprocess.CompletedProcess:
    """`harvest run` with a text on its standard input."""
    return subprocess.run(
        [sys.executable, "-m", "harvest", "run", "--config", str(config), "--json"],
        input=text,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )


def test_a_corpus_can_come_through_a_pipe(settings, corpus_file, tmp_path):
    lines = pl.read_parquet(corpus_file).head(6)
    from_file = settings(corpus={"path": str(corpus_file), "limit": 6})
    wanted = rows_of(harvested(from_file))
    config = tmp_path / "pipe.yaml"
    models = {name: spec.model_dump(mode="json") for name, spec in from_file.models.items()}
    settings_ = {
        "run_dir": str(tmp_path / "piped"),
        "models": models,
        "corpus": {"path": "-"},
        "harvest": from_file.harvest.model_dump(mode="json"),
    }
    config.write_text(json.dumps(settings_))
    done = run(config, lines.write_ndjson())
    assert done.returncode == 0, done.stderr
    store = Store(tmp_path / "piped" / "store.zarr")
    assert store.complete
    for name, values in rows_of(store).items():
        np.testing.assert_array_equal(values, wanted[name])


def test_standard_input_is_not_planned_with(settings):
    with pytest.raises(CorpusError, match="can be read only once; plan with a file"):
        estimate(settings(corpus={"path": "-"}))


def test_a_disk_that_cannot_hold_the_store_is_refused_before_it_is_begun(settings, monkeypatch):
    usage = namedtuple("usage", "total used free")
    made = settings()
    needed = estimate(made).bytes
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(10**9, 0, needed - 1000))
    assert estimate(made).missing_bytes == 1000
    with pytest.raises(StoreError, match=r"free space, choose another run_dir, .*harvest\.rows"):
        harvest(made)
    assert not made.path.exists()
    assert harvest(settings("few", rows=20)).rows == 20


def test_an_estimate_says_bytes_per_hookpoint_and_codec_and_the_rows_wanted(settings):
    expected = estimate(settings(rows=100))
    assert expected.rows == 100
    sizes = expected.hookpoint_bytes["a.model.layers.1.out"]
    assert sizes["none"] == 100 * 2 * 32
    assert sizes["int8"] == 100 * (4 + 32)
    assert 0 < sizes["lossless"] < 1.2 * sizes["none"]
    assert 0 <= expected.padding_fraction < 0.5
    assert expected.tokens.keys() == {"a", "b"}


def test_an_estimate_knows_that_a_small_source_ends_early(settings, corpus_file, tmp_path):
    (tmp_path / "many.txt").write_text("It is a truth universally acknowledged.\n" * 400)
    sources = {
        "few": {"path": str(corpus_file), "limit": 12},
        "many": {"path": str(tmp_path / "many.txt"), "format": "lines"},
    }
    made = settings(corpus={"sources": sources})
    expected = estimate(made)
    assert (expected.documents, expected.rows) == (412, harvest(made).rows)


def test_an_estimate_of_wanted_rows_needs_no_number_of_documents(settings, monkeypatch):
    """The first document of the corpus is empty, and gives no row."""
    monkeypatch.setattr("harvest.forecast.count_documents", lambda _: None)
    monkeypatch.setattr("harvest.forecast.SAMPLE_DOCUMENTS", 20)
    expected = estimate(settings(rows=1000))
    assert expected.rows == 1000


def test_what_left_everything_out_is_said(settings):
    with pytest.raises(CorpusError, match=r"gave no row \(left out: [\d,]+ rows among the first"):
        harvest(settings(skip_first=400))


def test_infinite_rows_are_no_outliers(settings, model_pair, tmp_path):
    weights = load_file(model_pair["a"] / "model.safetensors")
    name = "model.layers.1.mlp.down_proj.weight"
    weights[name] = weights[name] * float("inf")
    shutil.copytree(model_pair["a"], tmp_path / "broken")
    save_file(weights, tmp_path / "broken" / "model.safetensors", metadata={"format": "pt"})
    broken = settings(models={"a": {"path": str(tmp_path / "broken")}}, outlier_norm=1.5)
    with pytest.raises(ModelError, match=r"a\.model\.layers\.1\.out: activation is not finite"):
        harvest(broken)
