"""Delphi's caches of a harvested store: texts are whole, and activations at their tokens."""

import json
from itertools import pairwise

import numpy as np
import pytest
from transformers import AutoTokenizer
from typer.testing import CliRunner

from analyze.causal.passages import row_edges
from analyze.export.cli import export
from analyze.export.delphi import DelphiSpec, export_delphi
from analyze.export.sequences import Texts
from analyze.subject import open_subject
from harvest.models.texts import TextReader
from harvest.run import harvest
from harvest.settings import Settings
from harvest.tasks import Task
from pipeline.command import make_app
from store.reader import Store
from tests.analyze.causal.directed import FEATURES, A, B, dense_codes, directed, saved
from train.dictionary.partition import dedicated

from .test_delphi import as_delphi_reads

CTX = 32


def open_directed(store, folder):
    dictionary = directed(store, (A, B), dedicated(("a", "b"), FEATURES, {"a": 4, "b": 4}), 0.1)
    return open_subject(store, saved(dictionary, folder / "dictionary"), "cpu")


@pytest.fixture(scope="module")
def subject(harvested, tmp_path_factory):
    return open_directed(harvested[1], tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def tokenizers(harvested):
    specs = harvested[0].models
    return {name: AutoTokenizer.from_pretrained(spec.path) for name, spec in specs.items()}


@pytest.fixture(scope="module")
def mixed(configure, corpus_file, tmp_path_factory):
    """Plain texts and chats in turn, in three parts."""
    folder = tmp_path_factory.mktemp("mixed")
    chats, template = folder / "chats.jsonl", folder / "template.jinja"
    said = ["It is a truth", "universally acknowledged", "a single man", "in want of a wife"]
    turns = [
        [{"role": "user", "content": one}, {"role": "assistant", "content": one}] for one in said
    ]
    chats.write_text("".join(json.dumps({"chat": chat}) + "\n" for chat in turns))
    template.write_text("{% for m in messages %}[{{ m.role }}]{{ m.content }}\n{% endfor %}")
    sources = {
        "plain": {"path": str(corpus_file)},
        "chats": {"path": str(chats), "chat_column": "chat"},
    }
    config = configure(corpus={"sources": sources})
    for spec in config.raw["models"].values():
        spec["chat_template"] = str(template)
    for index in range(3):
        harvest(Settings.read(config), Task(index, 3))
    return open_directed(Store(config.store_path), folder)


def exported(subject, root, model, reader=None, separator=None, batch_rows=50):
    spec = DelphiSpec(model, "m", np.arange(FEATURES), CTX, separator, 3, reader)
    done = export_delphi(subject, spec, root, batch_rows)
    return done, *as_delphi_reads(root / done.hookpoint)


def laid_out(store, tokenizer, model, separator):
    """Tokens and rows of each, document by document, as transformers reads them."""
    reader, edges = TextReader(tokenizer, model), row_edges(store)
    ids, ends = store.column(f"token_{model}"), store.column("char_end")
    tokens, rows = [], []
    for document, (first, last) in enumerate(pairwise(edges)):
        if first == last:
            continue
        if tokens and separator is not None:
            tokens, rows = [*tokens, separator], [*rows, None]
        if store.schema.sources[store.documents.sources[document]] == "chats":
            tokens, rows = [*tokens, *ids[first:last].tolist()], [*rows, *range(first, last)]
            continue
        text = store.documents.text(document)
        own = tokenizer(text, add_special_tokens=False)["input_ids"]
        found: list[int | None] = [None] * len(own)
        row, read = last - 1, reader([text])[0]
        for place in reversed(range(len(own))):
            if row >= first and (own[place], read.ends[place]) == (ids[row], ends[row]):
                found[place], row = row, row - 1
        assert row == first - 1
        stop = max(place for place, row in enumerate(found) if row is not None) + 1
        tokens, rows = [*tokens, *own[:stop]], [*rows, *found[:stop]]
    return tokens, rows


@pytest.mark.parametrize("batch_rows", [7, 128])
@pytest.mark.parametrize("separator", [None, 2])
@pytest.mark.parametrize("model", ["a", "b"])
def test_every_token_is_there_and_activations_are_at_their_rows(
    subject, tokenizers, tmp_path, model, separator, batch_rows
):
    wanted, rows = laid_out(subject.store, tokenizers[model], model, separator)
    assert rows.count(None) > 100  # what a cache of rows alone would lack
    reader = TextReader(tokenizers[model], model)
    made = exported(subject, tmp_path / "out", model, reader, separator, batch_rows)
    assert made[0].not_whole == 0
    assert_laid_out(subject, made, wanted, rows)


@pytest.mark.parametrize("batch_rows", [7, 128])
def test_chats_between_texts_and_several_parts_are_in_their_places(
    mixed, tokenizers, tmp_path, batch_rows
):
    store = mixed.store
    kinds = [store.schema.sources[number] for number in store.documents.sources]
    assert (kinds.count("chats"), len(store.parts)) == (4, 3)
    wanted, rows = laid_out(store, tokenizers["b"], "b", 3)
    reader = TextReader(tokenizers["b"], "b")
    made = exported(mixed, tmp_path / "out", "b", reader, 3, batch_rows)
    assert made[0].not_whole == 4
    assert_laid_out(mixed, made, wanted, rows)


def assert_laid_out(subject, made, wanted, rows):
    """Every token of whole sequences, and at each the codes of its row, or none."""
    done, entries, tokens = made
    whole = len(wanted) // CTX
    assert tokens.flatten().tolist() == wanted[: whole * CTX]
    assert done.sequences.left_out == len(wanted) - whole * CTX
    codes = dense_codes(subject.store, subject.dictionary).numpy()
    expected = np.array([np.zeros(FEATURES) if row is None else codes[row] for row in rows])
    found = np.zeros((whole * CTX, FEATURES))
    for feature, of_feature in entries.items():
        for sequence, place, value in of_feature:
            found[sequence * CTX + place, feature] = value
    np.testing.assert_allclose(found, expected[: whole * CTX], rtol=1e-3, atol=1e-4)
    assert done.entries == np.count_nonzero(found) > 0


def test_texts_read_as_they_were_written(subject, tokenizers, tmp_path):
    reader = TextReader(tokenizers["b"], "b")
    _, _, tokens = exported(subject, tmp_path / "out", "b", reader)
    read = tokenizers["b"].decode(tokens.flatten().tolist())
    long = subject.store.documents.text(3)
    assert long.rstrip() in read


def test_texts_of_other_tokens_are_laid_out_by_their_rows(subject, tokenizers, tmp_path):
    other = TextReader(tokenizers["a"], "a")
    texts = Texts(subject.store, "b", other)
    documents = np.flatnonzero(np.diff(row_edges(subject.store))).tolist()
    assert texts(documents) == [None] * len(documents)
    assert texts.not_whole == len(documents)
    done, entries, tokens = exported(subject, tmp_path / "other", "b", other)
    alone, same_entries, same_tokens = exported(subject, tmp_path / "rows", "b")
    assert done.not_whole == alone.not_whole == len(documents)
    assert tokens.tolist() == same_tokens.tolist()
    assert entries == same_entries


def test_an_import_has_every_token_in_its_rows(subject, tokenizers, tmp_path, monkeypatch):
    monkeypatch.setitem(subject.store.schema.config, "import", {})
    reader = TextReader(tokenizers["b"], "b")
    done, _, tokens = exported(subject, tmp_path / "out", "b", reader)
    ids = subject.store.column("token_b").tolist()
    assert done.not_whole == 0
    assert tokens.flatten().tolist() == ids[: len(ids) // CTX * CTX]


def test_the_command_reads_texts_with_the_tokenizer_of_the_configuration(
    subject, harvested, tmp_path
):
    config, store = harvested
    (tmp_path / "pipeline.yaml").write_text(json.dumps(config.raw))
    app = make_app("for tests")
    app.command()(export)
    app.callback()(lambda: None)
    words = ["export", "--to", "delphi", "--out", tmp_path / "cache", "--ctx-len", CTX, "--json"]
    words += ["--config", tmp_path / "pipeline.yaml", "--dictionary", subject.folder]
    done = CliRunner().invoke(app, list(map(str, words)))
    assert done.exit_code == 0, done.output
    value = json.loads(done.stdout)
    assert value["documents_of_rows_only"] == 0
    assert value["sequences"] * CTX > store.rows + 100
