"""Contexts of many features at once, against one context at a time in plain Python."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from analyze.contexts import Firings, context_of, read_contexts
from analyze.subject import Subject
from store.block import Block
from store.reader import Store
from store.schema import Hookpoint, StoreSchema
from store.writer import PartWriter
from train.dictionary.artifact import load_dictionary
from train.dictionary.crosscoder import Crosscoder, HookpointShape
from train.dictionary.partition import dedicated

FEATURES = 9
LENGTHS = ((4, 0, 7, 1), (0, 0, 12), (3, 5, 0))  # rows of the documents of each part
TEXTS = ("naïve 漢字 👩‍👩‍👧 and more", "lone \ud83d surrogate", "\r\n\ttabs,\0 words", "x" * 40)


@pytest.fixture(scope="module")
def dictionary(dfc_folder):
    return load_dictionary(dfc_folder)


def _context(store, dictionary, row, reach=3):
    chunk = int(np.searchsorted(store.chunk_rows_before, row, side="right")) - 1
    local = row - store.chunk_rows_before[chunk]
    batch = {h.name: store.activations(h.name, chunk) for h in dictionary.hookpoints}
    codes = dictionary.encode(batch).dense()[local]
    feature = int(codes.argmax())
    return feature, context_of(store, dictionary, feature, row, float(codes[feature]), reach)


@pytest.mark.parametrize("row", [0, 11, 12, 49, 50, 51, 300, 719])
def test_pieces_join_to_the_text_around_the_peak_within_its_document(known_store, dictionary, row):
    _, context = _context(known_store, dictionary, row)
    document, word = divmod(row, 12)
    words = known_store.documents.text(document).split(" ")
    shown = words[max(0, word - 3) : word + 4]
    assert context.document == document
    assert "".join(context.texts).strip() == " ".join(shown)
    assert context.texts[context.peak].strip() == words[word]
    assert [piece.text for piece in context.pieces if piece.peak] == [context.texts[context.peak]]


def test_strength_is_the_features_activation_relative_to_the_peak(known_store, dictionary):
    feature, context = _context(known_store, dictionary, 25, reach=30)
    batch = {h.name: known_store.activations(h.name, 0) for h in dictionary.hookpoints}
    values = dictionary.encode(batch).dense()[24:36, feature]
    expected = (values / values[1]).clamp(max=1).tolist()
    assert [piece.strength for piece in context.pieces] == pytest.approx(expected, abs=1e-6)


def test_context_carries_the_label_of_its_document(known_store, dictionary):
    _, context = _context(known_store, dictionary, 12 * 4 + 5)
    assert context.label == "german"


@pytest.fixture(scope="module")
def awkward(tmp_path_factory) -> Subject:
    """Three parts, documents without rows, spans that overlap or run backwards, random weights."""
    path = tmp_path_factory.mktemp("awkward") / "store.zarr"
    hookpoints = (Hookpoint("a.mid.out", "a", 6), Hookpoint("b.mid.out", "b", 10))
    schema = StoreSchema(hookpoints, 4, {"corpus": "0"}, {}, parts=len(LENGTHS))
    generator, noise = np.random.default_rng(0), torch.Generator().manual_seed(0)
    for part, lengths in enumerate(LENGTHS):
        rows, documents = sum(lengths), len(lengths)
        texts = [f"{part}.{n} {TEXTS[(part + n) % len(TEXTS)]}" for n in range(documents)]
        start = generator.integers(0, 20, rows).astype(np.int32)
        block = Block(
            texts=texts,
            labels=[("prose", "")[n % 2] for n in range(documents)],
            sources=["corpus"] * documents,
            activations={
                h.name: torch.randn(rows, h.width, generator=noise).bfloat16() for h in hookpoints
            },
            document=np.repeat(np.arange(documents), lengths).astype(np.int32),
            char_start=start,
            char_end=start + generator.integers(0, 6, rows).astype(np.int32),
            tokens={m: np.zeros(rows, np.int32) for m in "ab"},
            tokens_read={"a": rows, "b": rows},
            tokens_paired={"a": rows, "b": rows},
        )
        with PartWriter(path, schema, part) as writer:
            writer.append(block, 1)
            writer.finish()
    shapes = (HookpointShape("a.mid.out", "a", 6), HookpointShape("b.mid.out", "b", 10))
    random = Crosscoder(shapes, dedicated(("a", "b"), FEATURES, {"a": 2, "b": 3}))
    with torch.no_grad():
        for weights in (*random.W_enc.values(), random.b_enc):
            weights.copy_(torch.randn(weights.shape, generator=noise))
        for weights in random.W_dec.values():
            weights.copy_(torch.randn(weights.shape, generator=noise))
    return Subject(Store(path), random, Path())


@pytest.fixture(scope="module")
def codes(awkward) -> np.ndarray:
    """All codes of the awkward store (rows, features)."""
    store = awkward.store
    everything = {
        h.name: torch.cat([store.activations(h.name, c) for c in range(store.chunks)])
        for h in awkward.dictionary.hookpoints
    }
    return awkward.dictionary.encode(everything).dense().detach().numpy()


def naive(subject, codes, feature, row, largest, reach):
    """Document, label, pieces and strengths of one context, row by row."""
    store = subject.store
    documents, ends = store.column("document"), store.column("char_end")
    document = int(documents[row])
    text = store.documents.text(document)
    near = range(max(0, row - reach), min(store.rows, row + reach + 1))
    shown = [r for r in near if documents[r] == document]
    before = shown[0] - 1
    if before >= 0 and documents[before] == document:
        begin = int(ends[before])
    else:
        begin = int(store.column("char_start")[shown[0]])
    pieces, strengths = [], []
    for r in shown:
        pieces.append(text[begin : int(ends[r])])
        begin = max(begin, int(ends[r]))
        strengths.append(min(1.0, float(codes[r, feature]) / largest))
    label = store.documents.label_names[store.documents.labels[document]] or "(none)"
    return document, label, pieces, strengths, shown.index(row)


@settings(deadline=None, max_examples=60)
@given(
    picks=st.lists(
        st.tuples(st.integers(0, FEATURES - 1), st.integers(0, 31)), min_size=1, max_size=25
    ),
    reach=st.integers(0, 14),
    batch_rows=st.integers(1, 40),
)
def test_contexts_read_together_are_those_read_one_by_one(awkward, codes, picks, reach, batch_rows):
    features, rows = (np.array(column) for column in zip(*picks, strict=True))
    largest = codes.max(axis=0)[features]
    firings = Firings(features, rows, codes[rows, features], largest)
    told, seen = [], []
    watched = replace(awkward, view=lambda batch: seen.append(batch.rows) or batch.activations)
    found = read_contexts(watched, firings, reach, batch_rows, told.append)
    assert len(found) == len(picks)
    for (feature, row), context in zip(picks, found, strict=True):
        expected = naive(awkward, codes, feature, row, codes.max(axis=0)[feature], reach)
        document, label, pieces, strengths, peak = expected
        assert (context.document, context.label) == (document, label)
        assert (context.texts, context.peak) == (pieces, peak)
        np.testing.assert_allclose(context.strengths, strengths, atol=1e-5)
        assert context.activation == codes[row, feature]
    assert max(map(len, seen)) <= batch_rows
    assert sum(told) == pytest.approx(len(picks))


def test_each_row_is_encoded_once_however_many_features_and_windows_share_it(awkward, codes):
    features = np.repeat(np.arange(FEATURES), 3)
    rows = np.tile([8, 9, 10], FEATURES)
    largest = codes.max(axis=0)[features]
    firings = Firings(features, rows, codes[rows, features], largest)
    seen = []
    watched = replace(awkward, view=lambda batch: seen.extend(batch.rows) or batch.activations)
    read_contexts(watched, firings, 2, 2)
    assert seen == [6, 7, 8, 9, 10]  # the document ends there


def test_nothing_is_read_for_no_firings(awkward):
    none = np.zeros(0, np.int64)
    empty = Firings(none, none, none.astype(np.float32), none.astype(np.float32))
    assert read_contexts(awkward, empty, 3, 8) == []
