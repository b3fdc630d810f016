import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ModelError, StoreError
from store import import_plan
from store.config import StoreConfig
from store.import_notes import notes
from store.import_plan import plan_import
from store.importer import import_caches
from store.reader import Store
from store.sweep import read_range
from store.verify import verify
from store.writer import PartWriter

from .caches import RANGES, ROWS, TOKENS, edit, random_rows, run_import, write_cache


def texts(store: Store) -> list[str]:
    return [store.documents.text(number) for number in range(len(store.documents))]


def own_texts(store: Store) -> list[str]:
    """The characters that each row stands for."""
    names = ("document", "char_start", "char_end")
    found = zip(*(store.column(name).tolist() for name in names), strict=True)
    return [store.documents.text(document)[start:end] for document, start, end in found]


@given(
    lengths=st.lists(st.integers(0, 12), min_size=1, max_size=8).filter(any),
    cuts=st.lists(st.floats(0, 1), max_size=3),
    chunk_rows=st.integers(1, 20),
)
@settings(max_examples=25, deadline=None)
def test_what_is_read_back_is_bit_equal_for_any_shards_documents_and_blocks(
    memory_folder, lengths, cuts, chunk_rows
):
    folder = Path(tempfile.mkdtemp(dir=memory_folder))
    ranges = torch.tensor([0, *np.cumsum(lengths)])
    rows = int(ranges[-1])
    edges = sorted(round(cut * (rows - 1)) for cut in cuts)
    values = [random_rows(rows, width, width) for width in (3, 6)]
    tokens = torch.arange(rows) + 5
    places = [
        write_cache(folder / "a/d/x_out", values[0], np.diff([0, *edges]), tokens, ranges),
        write_cache(folder / "b/d/x_out", values[1], (), tokens, ranges),
    ]
    store = run_import(places, folder / "store.zarr", chunk_rows)
    found = read_range(store, 0, store.rows).activations
    for name, wanted in zip(("a.x_out", "b.x_out"), values, strict=True):
        assert torch.equal(found[name].contiguous().view(torch.int16), wanted.view(torch.int16))
    assert store.column("token_a").tolist() == store.column("token_b").tolist() == tokens.tolist()
    assert np.bincount(store.column("document"), minlength=len(lengths)).tolist() == lengths
    assert own_texts(store) == [str(token) for token in tokens.tolist()]
    assert verify(store.path).problems == []


def test_each_sequence_is_a_document_labelled_with_its_dataset(caches, tmp_path):
    store = run_import(caches, tmp_path / "store.zarr")
    assert np.bincount(store.column("document")).tolist() == [9, 0, 1, 21, 9]
    assert store.documents.label_names == ["web"]
    assert texts(store)[2] == str(int(TOKENS[9]))


def test_hookpoints_come_in_the_order_of_the_caches(caches, tmp_path):
    store = run_import(caches[::-1], tmp_path / "store.zarr")
    assert [(h.name, h.model, h.width) for h in store.schema.hookpoints] == [
        ("chat.layer_1_out", "chat", 10),
        ("base.layer_1_out", "base", 6),
    ]


def test_the_saved_means_are_not_used(caches, tmp_path):
    for cache in caches:
        torch.save(torch.full((6,), 1e9), cache / "mean.pt")
    store = run_import(caches, tmp_path / "store.zarr")
    wanted = random_rows(ROWS, 6, 0).double().mean(0)
    assert np.allclose(store.statistics("base.layer_1_out").mean, wanted, rtol=0, atol=1e-12)


def test_no_path_of_this_machine_goes_into_the_store(caches, tmp_path):
    edit(caches[0] / "config.json", model_path=str(tmp_path / "base"))
    store = run_import(caches, tmp_path / "store.zarr")
    assert str(tmp_path) not in (store.path / "zarr.json").read_text()


def test_without_sequences_a_document_is_so_many_rows(caches, tmp_path):
    for cache in caches:
        (cache.parent / "sequence_ranges.pt").unlink()
    store = run_import(caches, tmp_path / "store.zarr", document_rows=16)
    assert np.bincount(store.column("document")).tolist() == [16, 16, 8]


def test_without_tokens_texts_count_the_rows_and_ids_are_zero(caches, tmp_path):
    for cache in caches:
        edit(cache / "config.json", store_tokens=False)
    plan = plan_import(caches, StoreConfig(chunk_rows=16), 8)
    import_caches(plan, tmp_path / "store.zarr")
    store = Store(tmp_path / "store.zarr")
    assert own_texts(store) == [f"row {row}" for row in range(ROWS)]
    assert not store.column("token_base").any()
    assert any("no tokens.pt" in note for note in notes(plan))
    assert verify(store.path).problems == []


def test_text_comes_from_the_first_model_that_has_tokens(caches, tmp_path):
    edit(caches[0] / "config.json", store_tokens=False)
    store = run_import(caches, tmp_path / "store.zarr")
    assert own_texts(store) == [str(token) for token in TOKENS.tolist()]
    assert not store.column("token_base").any()
    assert store.column("token_chat").tolist() == TOKENS.tolist()


def test_models_with_other_tokens_keep_their_own_and_that_is_said(caches, tmp_path):
    other = TOKENS.clone()
    other[:4] += 1
    torch.save(other, caches[1].parent / "tokens.pt")
    plan = plan_import(caches, StoreConfig(chunk_rows=16), 8)
    import_caches(plan, tmp_path / "store.zarr")
    store = Store(tmp_path / "store.zarr")
    assert store.column("token_base").tolist() == TOKENS.tolist()
    assert store.column("token_chat").tolist() == other.tolist()
    assert any("differ in 4 of 40 rows" in note for note in notes(plan))


def test_hookpoints_of_one_model_share_its_tokens(caches, tmp_path):
    second = write_cache(
        tmp_path / "base/web/train/layer_2_out", random_rows(ROWS, 4, 5), (), TOKENS, RANGES
    )
    store = run_import([*caches, second], tmp_path / "store.zarr")
    assert store.schema.models == ("base", "chat")
    assert store.schema.hookpoints[2].name == "base.layer_2_out"


def test_one_model_with_two_token_files_that_differ_is_refused(caches, tmp_path):
    other = write_cache(
        tmp_path / "more/web/layer_2_out", random_rows(ROWS, 4, 5), (), TOKENS.flip(0)
    )
    with pytest.raises(StoreError, match=r"tokens\.pt and .*tokens\.pt differ.*--model"):
        plan_import([caches[0], other], StoreConfig(), 8, ["a", "a"])


def test_a_tokenizer_makes_words_of_the_first_models_tokens(caches, model_pair, tmp_path):
    text = "naïve 漢字 and\nwords"
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model_pair["b"] / "tokenizer.json"))
    ids = torch.tensor(tokenizer.encode(text, add_special_tokens=False).ids)
    for cache, width in zip(caches, (6, 10), strict=True):
        write_cache(cache, random_rows(len(ids), width, 0), (), ids, torch.tensor([0, len(ids)]))
        for number in (1, 2):
            (cache / f"shard_{number}.memmap").unlink(missing_ok=True)
    store = run_import(caches, tmp_path / "store.zarr", tokenizer=str(model_pair["b"]))
    assert texts(store) == [text]
    assert own_texts(store)[-1] in text[-6:]
    assert verify(store.path).problems == []


def test_a_tokenizer_without_the_ids_is_of_another_model(caches, model_pair, tmp_path):
    torch.save(TOKENS + 100_000, caches[0].parent / "tokens.pt")
    with pytest.raises(ModelError, match="has 100000 at row 0; name the tokenizer of base"):
        run_import(caches, tmp_path / "store.zarr", tokenizer=str(model_pair["b"]))


@pytest.mark.parametrize("bad", [-1, 2**31])
def test_a_number_that_is_no_token_id_is_refused_with_its_row(caches, tmp_path, bad):
    tokens = TOKENS.clone()
    tokens[33] = bad
    torch.save(tokens, caches[1].parent / "tokens.pt")
    with pytest.raises(
        StoreError, match=f"{caches[1].parent}/tokens.pt: {bad} at row 33 is no token id"
    ):
        run_import(caches, tmp_path / "store.zarr")


def test_caches_of_other_length_are_refused_with_both_counts(caches, tmp_path):
    shorter = write_cache(tmp_path / "third/web/train/layer_1_out", random_rows(39, 4, 3))
    with pytest.raises(StoreError) as caught:
        plan_import([*caches, shorter], StoreConfig(), 8)
    assert all(words in str(caught.value) for words in ("has 40 rows", "has 39", "collect both"))
    assert "\n" not in str(caught.value)


def test_sequences_that_contradict_each_other_are_refused(caches):
    torch.save(torch.tensor([0, 8, ROWS]), caches[1].parent / "sequence_ranges.pt")
    with pytest.raises(StoreError, match=r"sequence_ranges\.pt differ"):
        plan_import(caches, StoreConfig(), 8)


def test_shuffled_caches_cannot_be_paired_but_one_alone_can_be_read(caches, tmp_path):
    for cache in caches:
        edit(cache / "config.json", shuffle_shards=True)
    with pytest.raises(StoreError, match="shuffle_shards is set"):
        plan_import(caches, StoreConfig(), 8)
    assert run_import(caches[:1], tmp_path / "store.zarr").rows == ROWS


def test_rounding_is_said(tmp_path):
    folder = write_cache(
        tmp_path / "f/web/train/layer_1_out", random_rows(ROWS, 6, 0, torch.float32)
    )
    found = notes(plan_import([folder], StoreConfig(), 8))
    assert any("float32 values are rounded to bfloat16" in note for note in found)


def test_a_sequence_too_long_for_memory_is_cut_and_that_is_said(caches, tmp_path, monkeypatch):
    monkeypatch.setattr(import_plan, "LONGEST_DOCUMENT", 10)
    plan = plan_import(caches, StoreConfig(chunk_rows=16), 8)
    import_caches(plan, tmp_path / "store.zarr")
    counts = np.bincount(Store(tmp_path / "store.zarr").column("document"))
    assert counts.tolist() == [9, 0, 1, 10, 10, 1, 9]
    assert any("long sequences were cut, into 2 more documents" in note for note in notes(plan))


def test_only_a_block_of_rows_is_ever_held(caches, tmp_path, monkeypatch):
    sizes = []
    append = PartWriter.append

    def watched(writer, block, cursor):
        sizes.append(len(block.document))
        append(writer, block, cursor)

    monkeypatch.setattr(PartWriter, "append", watched)
    run_import(caches, tmp_path / "store.zarr", chunk_rows=16)
    assert sizes == [10, 21, 9]  # whole documents: that of 21 rows is larger than a chunk
