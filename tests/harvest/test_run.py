"""A whole harvest: what lies in the store is what each model says about each stretch of text."""

import dataclasses
import shutil
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from harvest.corpus.blocks import DocumentBlock
from harvest.corpus.document import Document
from harvest.estimate import estimate
from harvest.produce import produce
from harvest.run import harvest
from harvest.settings import Settings
from harvest.setup import load_models, make_planner
from pipeline.config import Config
from pipeline.errors import ConfigError, CorpusError, ModelError, StoreError
from store.commits import read_log
from store.layout import default_chunk_rows
from store.reader import Store
from store.verify import verify

HOOKPOINTS = {"a": "model.layers.1", "b": "gpt_neox.layers.1"}
MAX_TOKENS = 48


def make_settings(model_pair, corpus_file, run_dir, **changes) -> Settings:
    raw = {
        "run_dir": str(run_dir),
        "models": {
            name: {
                "path": str(path),
                "hookpoint": HOOKPOINTS[path.name],
                "dtype": "float32",
                "device": "cpu",
            }
            for name, path in model_pair.items()
        },
        "corpus": {"path": str(corpus_file), "label_column": "domain"},
        "harvest": {"max_tokens": MAX_TOKENS, "block_documents": 8, "batch_tokens": 400},
        "store": {"chunk_rows": 128},
    }
    for key, value in changes.items():
        section, _, name = key.partition("__")
        if isinstance(value, dict):
            raw[section][name].update(value)
        else:
            raw[section][name] = value
    return Settings.read(Config("test.yaml", raw))


@pytest.fixture(scope="module")
def harvested(model_pair, corpus_file, tmp_path_factory):
    settings = make_settings(model_pair, corpus_file, tmp_path_factory.mktemp("run"))
    return harvest(settings), Store(settings.path)


@pytest.fixture(scope="module")
def documents(corpus_file):
    return pl.read_parquet(corpus_file)


def all_rows(store, name: str) -> torch.Tensor:
    return torch.cat([store.activations(name, chunk) for chunk in range(store.chunks)])


def test_the_store_holds_every_document_of_the_corpus(harvested, documents):
    summary, store = harvested
    assert store.complete
    assert summary.documents == len(documents) == len(store.documents)
    labels = [store.documents.label_names[label] for label in store.documents.labels]
    assert labels == documents["domain"].to_list()
    assert [store.documents.text(number) for number in range(len(documents))] == (
        documents["text"].to_list()
    )


def test_a_row_shows_the_text_that_its_tokens_stand_for(harvested, documents, model_pair):
    _, store = harvested
    columns = ("document", "char_start", "char_end", "token_a", "token_b")
    rows = list(zip(*(store.column(name).tolist() for name in columns), strict=True))
    tokenizers = {name: AutoTokenizer.from_pretrained(path) for name, path in model_pair.items()}
    plain = [text.isascii() for text in documents["text"]]
    checked = 0
    for document, start, end, *tokens in rows:
        shown = documents["text"][document][start:end]
        assert shown
        if plain[document]:
            for name, token in zip("ab", tokens, strict=True):
                own = tokenizers[name].decode([token]).removeprefix(" ")
                assert shown.endswith(own), (shown, own)
                checked += bool(own)
    assert checked > 1000


def test_activations_are_those_of_each_window_run_alone(
    harvested, documents, model_pair, corpus_file, tmp_path
):
    """Against plain transformers: one window at a time, so neither padded nor batched.

    Tolerance: products of another shape round differently in float32, about 1e-6 here, and the
    store rounds to bfloat16, of which half a unit in the last place is 2^-9 of the value.
    """
    _, store = harvested
    settings = make_settings(model_pair, corpus_file, tmp_path)
    plan = make_planner(settings, load_models(settings))(
        [Document(text, "") for text in documents["text"]]
    )
    for share, (name, path) in zip(plan.models, model_pair.items(), strict=True):
        model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
        rows = []
        for start, stop in zip(share.window_start, share.window_stop, strict=True):
            ids = [*share.prefix, *share.ids[start:stop].tolist()]
            assert len(ids) <= MAX_TOKENS
            with torch.no_grad():
                hidden = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[2][0]
            inside = share.row_token[(share.row_token >= start) & (share.row_token < stop)] - start
            rows.append(hidden[len(share.prefix) + torch.from_numpy(inside)])
        assert len(rows) > 2 * len(documents), "no document needs several windows"
        stored = all_rows(store, f"{name}.{HOOKPOINTS[name]}.out")
        torch.testing.assert_close(stored.float(), torch.cat(rows), rtol=2**-8, atol=1e-5)
        assert store.column(f"token_{name}").tolist() == share.ids[share.row_token].tolist()


def test_the_fraction_of_paired_tokens_counts_text_tokens_only(harvested, documents, model_pair):
    summary, store = harvested
    texts = documents["text"].to_list()
    for name, path in model_pair.items():
        ids = AutoTokenizer.from_pretrained(path)(texts, add_special_tokens=False)["input_ids"]
        assert summary.paired_fraction[name] == store.rows / sum(map(len, ids))
    assert summary.rows == store.rows


def test_a_model_beside_itself_pairs_every_token_with_equal_activations(
    model_pair, corpus_file, tmp_path
):
    twins = {"a": model_pair["a"], "twin": model_pair["a"]}
    settings = make_settings(twins, corpus_file, tmp_path, corpus__limit=6)
    summary = harvest(settings)
    assert summary.paired_fraction == {"a": 1.0, "twin": 1.0}
    store = Store(settings.path)
    left, right = (all_rows(store, f"{name}.{HOOKPOINTS['a']}.out") for name in twins)
    assert torch.equal(left, right)


def test_a_lone_model_keeps_every_token(model_pair, corpus_file, tmp_path):
    settings = make_settings({"b": model_pair["b"]}, corpus_file, tmp_path, corpus__limit=4)
    assert harvest(settings).paired_fraction == {"b": 1.0}


def test_a_complete_store_is_found_complete_without_loading_a_model(
    harvested, model_pair, corpus_file, monkeypatch
):
    summary, store = harvested
    monkeypatch.setattr("harvest.setup.HookedModel", None)
    again = harvest(make_settings(model_pair, corpus_file, store.path.parent))
    assert again == dataclasses.replace(summary, rows_per_second=None)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"models__a": {"hookpoint": "model.layers.0"}}, "config.models.a.hookpoint"),
        ({"models__b": {"site": "in"}}, "config.models.b.site"),
        ({"corpus__limit": 3}, "config.corpus.limit"),
        ({"harvest__max_tokens": 64}, "config.harvest.max_tokens"),
        ({"store__chunk_rows": 64}, "chunk_rows: store has 128, now 64"),
        ({"store__chunk_rows": None}, "chunk_rows: store has 128, now "),
        ({"store__codec": "int8"}, "codec: store has 'none', now 'int8'"),
    ],
)
def test_a_store_begun_with_other_settings_is_refused(
    harvested, model_pair, corpus_file, change, named
):
    _, store = harvested
    settings = make_settings(model_pair, corpus_file, store.path.parent, **change)
    with pytest.raises(StoreError, match=named):
        harvest(settings)


def test_the_store_knows_how_many_token_ids_each_model_has(harvested, model_pair):
    _, store = harvested
    sizes = {
        name: AutoModelForCausalLM.from_pretrained(path).get_input_embeddings().num_embeddings
        for name, path in model_pair.items()
    }
    assert store.schema.vocabulary == sizes


def test_a_harvested_store_passes_verification(harvested):
    _, store = harvested
    assert verify(store.path).problems == []


def test_a_harvest_commits_once_per_chunk_of_rows(model_pair, corpus_file, tmp_path):
    changes = {"harvest__block_documents": 1, "store__chunk_rows": 200}
    settings = make_settings(model_pair, corpus_file, tmp_path, **changes)
    harvest(settings)
    (part,) = Store(settings.path).parts
    commits = read_log(part.folder, part.state.log_bytes).commits
    apart = [after - before for before, after in pairwise([0, *(c.rows for c in commits)])]
    assert max(len(commit.blocks) for commit in commits) > 1
    assert len(commits) > 2
    assert min(apart[:-1]) >= 200


@pytest.mark.parametrize("codec", ["lossless", "int8"])
def test_a_harvest_with_a_codec_and_chunks_of_the_default_size_is_found_complete_again(
    codec, model_pair, corpus_file, tmp_path, monkeypatch
):
    changes = {"store__codec": codec, "store__chunk_rows": None, "corpus__limit": 4}
    settings = make_settings(model_pair, corpus_file, tmp_path, **changes)
    summary = harvest(settings)
    schema = Store(settings.path).schema
    assert (schema.codec, schema.chunk_rows) == (codec, default_chunk_rows(schema.hookpoints))
    assert verify(settings.path).problems == []
    monkeypatch.setattr("harvest.setup.HookedModel", None)
    assert harvest(settings) == dataclasses.replace(summary, rows_per_second=None)


@pytest.fixture
def moved(model_pair, corpus_file, tmp_path, monkeypatch):
    """Copies of models and corpus under relative names, free to be changed."""
    monkeypatch.chdir(tmp_path)
    for name, path in model_pair.items():
        shutil.copytree(path, name)
    shutil.copy(corpus_file, "corpus.parquet")
    pair = {name: Path(name) for name in model_pair}
    return make_settings(pair, "corpus.parquet", "run", corpus__limit=4)


def scale_weights(folder: Path, factor: float) -> None:
    file = folder / "model.safetensors"
    weights = {name: tensor * factor for name, tensor in load_file(file).items()}
    save_file(weights, file, metadata={"format": "pt"})


def test_the_same_settings_with_other_weights_are_refused(moved):
    harvest(moved)
    scale_weights(Path("b"), 1.01)
    with pytest.raises(StoreError, match=r"fingerprints\.models\.b"):
        harvest(moved)


def test_the_same_settings_with_another_text_are_refused(moved):
    harvest(moved)
    pl.DataFrame({"text": ["other"], "domain": ["x"]}).write_parquet("corpus.parquet")
    with pytest.raises(StoreError, match=r"fingerprints\.corpus"):
        harvest(moved)


def test_an_activation_that_is_not_finite_names_model_hookpoint_and_document(moved):
    scale_weights(Path("b"), float("inf"))
    with pytest.raises(ModelError, match=r"b\.gpt_neox\.layers\.1\.out: .* document 1 at char"):
        harvest(moved)
    assert not Store(moved.path).complete


def test_a_tokenizer_of_other_weights_is_refused(moved):
    shutil.copy("a/tokenizer.json", "b/tokenizer.json")
    shutil.copy("a/tokenizer_config.json", "b/tokenizer_config.json")
    with pytest.raises(ModelError, match=r"models\.b: its tokenizer gives token \d+, .* 400;"):
        harvest(moved)


def test_a_window_without_room_for_text_is_refused(model_pair, corpus_file, tmp_path):
    settings = make_settings(model_pair, corpus_file, tmp_path, harvest__max_tokens=1)
    with pytest.raises(ConfigError, match=r"harvest\.max_tokens: 1 leaves model a no room"):
        harvest(settings)


def test_a_corpus_without_documents_is_refused(model_pair, tmp_path):
    file = tmp_path / "none.parquet"
    pl.DataFrame(schema={"text": pl.String, "domain": pl.String}).write_parquet(file)
    with pytest.raises(CorpusError, match="holds no documents"):
        harvest(make_settings(model_pair, file, tmp_path))


def test_an_estimate_writes_nothing_and_is_exact_for_a_corpus_that_it_read_whole(
    harvested, documents, model_pair, corpus_file, tmp_path
):
    summary, store = harvested
    settings = make_settings(model_pair, corpus_file, tmp_path)
    expected = estimate(settings)
    assert (expected.rows, expected.documents) == (summary.rows, summary.documents)
    assert expected.paired_fraction == summary.paired_fraction
    files = [file for file in store.path.rglob("*") if file.is_file() and "c" in file.parts]
    data = [file for file in files if "commits" not in file.parts]
    assert expected.bytes == sum(file.stat().st_size for file in data)
    assert not settings.path.exists()


def test_models_and_corpus_may_be_moved(moved, tmp_path, monkeypatch):
    summary = harvest(moved)
    for name in ("a", "b", "corpus.parquet"):
        (tmp_path / "elsewhere").mkdir(exist_ok=True)
        shutil.move(name, f"elsewhere/{name}")
    pair = {name: Path("elsewhere") / name for name in moved.models}
    again = make_settings(pair, "elsewhere/corpus.parquet", "run", corpus__limit=4)
    assert harvest(again) == dataclasses.replace(summary, rows_per_second=None)


def test_a_complete_store_is_not_opened_for_writing(
    harvested, model_pair, corpus_file, monkeypatch
):
    _, store = harvested
    monkeypatch.setattr("harvest.setup.PartWriter", None)
    settings = make_settings(model_pair, corpus_file, store.path.parent)
    assert harvest(settings).rows_per_second is None


@pytest.mark.parametrize("run_dir", ["file", "file/below", "x" * 300, "/proc/foo"])
def test_a_run_dir_that_cannot_be_made_is_named_before_a_model_is_loaded(
    run_dir, model_pair, corpus_file, tmp_path, monkeypatch
):
    monkeypatch.setattr("harvest.setup.HookedModel", None)
    (tmp_path / "file").write_text("")
    settings = make_settings(model_pair, corpus_file, tmp_path / run_dir)
    with pytest.raises(StoreError, match=rf"{run_dir}: cannot be created .*another run_dir"):
        harvest(settings)


def test_a_path_with_brackets_is_shown_as_it_is(model_pair, corpus_file, tmp_path):
    shutil.copytree(model_pair["a"], tmp_path / "odd[" / "x]")
    settings = make_settings({"a": model_pair["a"]}, corpus_file, tmp_path)
    spec = settings.models["a"].model_copy(update={"path": f"{tmp_path}/odd[/x]"})
    assert (
        load_models(dataclasses.replace(settings, models={"a": spec}))[0].hookpoints[0].width == 32
    )


def test_out_of_memory_says_that_a_begun_store_must_be_deleted(moved, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError

    models = load_models(moved)
    monkeypatch.setattr("harvest.models.hooked.HookedModel.activations", full)
    block = DocumentBlock([Document("some text", "")], [0], 1, {}, {})
    with pytest.raises(
        ModelError, match=r"out of memory; lower harvest\.batch_tokens \(now 400\); .* delete it"
    ):
        list(produce(models, make_planner(moved, models), [block], moved.harvest))
