import numpy as np
import pytest

from pipeline.errors import StoreError
from store.reader import Store

from .contents import flip, overwrite


@pytest.fixture
def store(build_store, tmp_path):
    return build_store(tmp_path / "store.zarr", [[(9, 12), (4, 0)], [(20,)]])


def test_row_ends_are_the_rows_up_to_and_with_each_document(store):
    assert [ends.tolist() for ends in store.documents.row_ends] == [[9, 21, 25, 25], [20]]


def test_a_text_that_has_changed_is_never_shown(store):
    flip(store.parts[0].folder / "documents/text/c/0", 2)
    documents = Store(store.path).documents
    with pytest.raises(StoreError, match=r"documents/text: text of document 1 has changed"):
        documents.text(1)
    assert documents.text(2) == store.documents.text(2)


def test_a_text_that_has_changed_is_found_whatever_its_bytes(store):
    overwrite(store, 0, "documents/text", lambda values: values.fill(0xFF))
    with pytest.raises(StoreError, match="has changed"):
        store.documents.text(1)


@pytest.mark.parametrize(
    ("column", "read"),
    [
        ("text_end", lambda documents: documents.text(1)),
        ("row_end", lambda documents: documents.row_ends),
        ("hash", lambda documents: documents.validation_mask(0.5)),
        ("label", lambda documents: documents.labels),
        ("source", lambda documents: documents.sources),
    ],
)
def test_a_column_of_documents_that_has_changed_is_refused(column, read, store):
    flip(store.parts[1].folder / "documents" / column / "c/0", 40_000)
    with pytest.raises(StoreError, match=rf"documents/{column}/c/0: checksum"):
        read(store.documents)


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_that_is_not_there_is_refused(label, store):
    overwrite(store, 0, "documents/label", lambda values: np.put(values, 1, label))
    with pytest.raises(StoreError, match="documents/label: a document has no label"):
        _ = store.documents.labels


@pytest.mark.parametrize(("place", "value"), [(0, -1), (1, 10**9), (3, 5)])
@pytest.mark.parametrize("column", ["text_end", "row_end"])
def test_ends_that_do_not_rise_to_their_total_are_refused(column, place, value, store):
    overwrite(store, 0, f"documents/{column}", lambda values: np.put(values, place, value))
    with pytest.raises(StoreError, match=f"documents/{column}: ends do not rise to"):
        _ = store.documents.row_ends if column == "row_end" else store.documents.text(1)
