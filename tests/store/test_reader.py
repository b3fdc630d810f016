import numpy as np
import pytest
import torch
import zarr

from pipeline.errors import StoreError
from store.reader import Store
from store.statistics import RowStatistics
from store.writer import PartWriter


@pytest.fixture
def blocks(make_block):
    """Two parts whose labels come in different orders; chunks of both end short."""
    return [
        [make_block((5, 0, 14), seed=1, labels=("prose", "code")), make_block((3,), seed=2)],
        [make_block((9, 2, 8), seed=3, labels=("german", "code", "prose"))],
    ]


@pytest.fixture
def store(build_store, blocks, tmp_path):
    return build_store(tmp_path / "store.zarr", blocks)


@pytest.fixture
def flat(blocks):
    """The blocks of all parts in order."""
    return [block for part in blocks for block in part]


@pytest.mark.parametrize("name", ["a.mid", "b.mid"])
def test_rows_of_the_parts_follow_each_other(store, flat, name):
    found = torch.cat([store.activations(name, chunk) for chunk in range(store.chunks)])
    assert torch.equal(found, torch.cat([block.activations[name] for block in flat]))


@pytest.mark.parametrize("name", ["char_start", "char_end"])
def test_columns_of_the_parts_follow_each_other(store, flat, name):
    expected = np.concatenate([getattr(block, name) for block in flat])
    assert store.column(name).tolist() == expected.tolist()


def test_tokens_of_the_parts_follow_each_other(store, flat):
    expected = np.concatenate([block.tokens["b"] for block in flat])
    assert store.column("token_b").tolist() == expected.tolist()


def test_documents_are_numbered_over_blocks_and_parts(store, flat):
    before = np.cumsum([0, *(len(block.texts) for block in flat)])
    expected = np.concatenate([b.document + n for b, n in zip(flat, before, strict=False)])
    assert store.column("document").tolist() == expected.tolist()


def test_every_text_is_exactly_as_it_was(store, flat):
    texts = [store.documents.text(number) for number in range(len(store.documents))]
    assert texts == [text for block in flat for text in block.texts]


def test_labels_mean_the_same_in_every_part(store, flat):
    names = [store.documents.label_names[number] for number in store.documents.labels]
    assert names == [label for block in flat for label in block.labels]


@pytest.mark.parametrize("name", ["a.mid", "b.mid"])
def test_statistics_are_those_of_all_rows(store, flat, name):
    expected = RowStatistics.of(torch.cat([block.activations[name] for block in flat]))
    found = store.statistics(name)
    assert (found.count, found.norm_bins) == (expected.count, expected.norm_bins)
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(found.variance, expected.variance, rtol=1e-12)


def test_paired_fraction_counts_the_tokens_of_all_parts(store, flat):
    rows = sum(len(block.document) for block in flat)
    assert store.paired_fraction("a") == rows / (rows + 5 * len(flat))


def test_chunk_sizes_are_the_rows_of_each_chunk(store):
    assert store.chunk_sizes.tolist() == [16, 6, 16, 3]


def test_chunk_rows_before_number_the_first_rows(store):
    assert store.chunk_rows_before.tolist() == [0, 16, 22, 38]


def test_reading_changes_no_file(store, tree):
    before = tree(store.path)
    store.activations("a.mid", 0)[:] = 7
    assert tree(store.path) == before


def test_a_store_is_complete_when_every_part_is(make_schema, make_block, tmp_path):
    path, schema = tmp_path / "store.zarr", make_schema(parts=2)
    with PartWriter(path, schema, 0) as writer:
        writer.finish()
    assert (Store(path).complete, Store(path).missing_parts) == (False, [1])
    with PartWriter(path, schema, 1) as writer:
        writer.append(make_block((1,)), 1)
        assert (Store(path).complete, Store(path).missing_parts) == (False, [])
        writer.finish()
    assert Store(path).complete


def test_an_open_reader_does_not_see_rows_committed_later(store, make_schema, make_block):
    with PartWriter(store.path, make_schema(parts=2), 1) as writer:
        writer.append(make_block((30,)), 2)
    assert (store.rows, Store(store.path).rows) == (41, 71)


def test_an_unknown_hookpoint_is_refused_with_those_there_are(store):
    with pytest.raises(StoreError, match=r"no hookpoint 'c'; it has a\.mid, b\.mid"):
        store.activations("c", 0)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(StoreError, match="no such file; is this an activation store"):
        Store(tmp_path / "nonexistent")


@pytest.mark.parametrize(("version", "remedy"), [(2, "harvest it again"), (4, "install a newer")])
def test_a_store_of_another_version_is_refused(store, version, remedy):
    root = store.path / "zarr.json"
    root.write_text(root.read_text().replace('"version": 3', f'"version": {version}'))
    with pytest.raises(StoreError, match=f"store version {version}, this program.*{remedy}"):
        Store(store.path)


def test_a_text_longer_than_a_chunk_of_text_is_read_whole(build_store, make_block, tmp_path):
    block = make_block((1, 1, 1))
    block.texts[1] = "漢字" * 400_000
    block.texts[2] = "behind"
    documents = build_store(tmp_path / "store.zarr", [[block]]).documents
    assert [documents.text(number) for number in range(3)] == block.texts


def test_zarr_tells_other_clients_the_committed_rows(store):
    group = zarr.open_group(store.path, mode="r")
    assert group["parts/00000/activations/b.mid"].shape == (22, 10)
