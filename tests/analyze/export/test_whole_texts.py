"""Delphi's caches of a harvested store: texts are whole, and activations at their tokens."""

from itertools import pairwise

import numpy as np
import pytest
from transformers import AutoTokenizer

from analyze.causal.passages import row_edges
from analyze.export.delphi import DelphiSpec, export_delphi
from analyze.export.sequences import WholeTexts
from analyze.subject import open_subject
from harvest.models.texts import TextReader
from tests.analyze.causal.directed import FEATURES, A, B, dense_codes, directed, saved
from train.dictionary.partition import dedicated

from .test_delphi import as_delphi_reads

CTX = 32


@pytest.fixture(scope="module")
def subject(harvested, tmp_path_factory):
    store = harvested[1]
    dictionary = directed(store, (A, B), dedicated(("a", "b"), FEATURES, {"a": 4, "b": 4}), 0.1)
    folder = saved(dictionary, tmp_path_factory.mktemp("whole") / "dictionary")
    return open_subject(store, folder, "cpu")


@pytest.fixture(scope="module")
def tokenizers(harvested):
    specs = harvested[0].models
    return {name: AutoTokenizer.from_pretrained(spec.path) for name, spec in specs.items()}


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
    store = subject.store
    wanted, rows = laid_out(store, tokenizers[model], model, separator)
    assert rows.count(None) > 100  # what a cache of rows alone would lack
    reader = TextReader(tokenizers[model], model)
    done, entries, tokens = exported(
        subject, tmp_path / "out", model, reader, separator, batch_rows
    )
    whole = len(wanted) // CTX
    assert tokens.flatten().tolist() == wanted[: whole * CTX]
    assert (done.not_whole, done.sequences.left_out) == (0, len(wanted) - whole * CTX)
    codes = dense_codes(store, subject.dictionary).numpy()
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
    texts = WholeTexts(subject.store, "b", other)
    documents = np.flatnonzero(np.diff(row_edges(subject.store))).tolist()
    assert texts(documents) == [None] * len(documents)
    assert texts.not_whole == len(documents)
    done, entries, tokens = exported(subject, tmp_path / "other", "b", other)
    alone, same_entries, same_tokens = exported(subject, tmp_path / "rows", "b")
    assert done.not_whole == alone.not_whole == len(documents)
    assert tokens.tolist() == same_tokens.tolist()
    assert entries == same_entries
