import numpy as np
import pytest

from analyze.contexts import context_of
from train.dictionary.artifact import load_dictionary


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
    assert "".join(piece.text for piece in context.pieces).strip() == " ".join(shown)
    assert [piece.text.strip() for piece in context.pieces if piece.peak] == [words[word]]


def test_strength_is_the_features_activation_relative_to_the_peak(known_store, dictionary):
    feature, context = _context(known_store, dictionary, 25, reach=30)
    batch = {h.name: known_store.activations(h.name, 0) for h in dictionary.hookpoints}
    values = dictionary.encode(batch).dense()[24:36, feature]
    expected = (values / values[1]).clamp(max=1).tolist()
    assert [piece.strength for piece in context.pieces] == pytest.approx(expected, abs=1e-6)


def test_context_carries_the_label_of_its_document(known_store, dictionary):
    _, context = _context(known_store, dictionary, 12 * 4 + 5)
    assert context.label == "german"
