import json
import os
import pickle
import shutil
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import StoreError
from store.cache import open_cache

from .caches import edit, write_cache

WIDTH = 5


def random_rows(rows, dtype=torch.bfloat16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, WIDTH, generator=generator).to(dtype)


@pytest.fixture
def folder(tmp_path):
    """A cache of 10 rows in shards of 4, 3 and 3, with tokens and three sequences."""
    return write_cache(
        tmp_path / "model/data/layer_1_out",
        random_rows(10),
        (4, 3),
        torch.arange(10),
        torch.tensor([0, 4, 4, 10]),
    )


def bits(rows: torch.Tensor) -> torch.Tensor:
    return rows.contiguous().view(torch.int16)


@given(
    shards=st.lists(st.integers(0, 6), max_size=4),
    rest=st.integers(1, 6),
    edges=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
@settings(max_examples=30, deadline=None)
def test_any_range_of_rows_is_bit_equal_however_the_shards_were_cut(
    memory_folder, shards, rest, edges
):
    wanted = random_rows(sum(shards) + rest)
    place = Path(tempfile.mkdtemp(dir=memory_folder)) / "m/d/layer_out"
    cache = open_cache(write_cache(place, wanted, shards))
    start, stop = sorted(round(edge * len(wanted)) for edge in edges)
    assert (cache.rows, cache.width) == wanted.shape
    assert torch.equal(bits(cache.read(start, stop)), bits(wanted[start:stop]))


def test_every_bfloat16_that_is_finite_comes_through(tmp_path):
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    finite = every[every.isfinite()].reshape(-1, WIDTH * 2)
    cache = open_cache(write_cache(tmp_path / "m/d/layer_out", finite))
    assert torch.equal(bits(cache.read(0, len(finite))), bits(finite))
    assert cache.rounded == []


@pytest.mark.parametrize(
    ("dtype", "name"),
    [
        (torch.float32, "float32"),
        (torch.float16, "float16"),
        (torch.float64, "float64"),
    ],
)
def test_other_floats_are_rounded_to_bfloat16(tmp_path, dtype, name):
    values = random_rows(9, dtype)
    cache = open_cache(write_cache(tmp_path / "m/d/layer_out", values, (4,)))
    assert torch.equal(cache.read(0, 9), values.to(torch.bfloat16))
    assert cache.rounded == [name]


@pytest.mark.parametrize("name", [None, "<f4"])
def test_a_meta_file_without_dtype_or_with_numpys_name_is_float32(tmp_path, name):
    values = random_rows(3, torch.float32)
    folder = write_cache(tmp_path / "m/d/layer_out", values)
    edit(folder / "shard_0.meta", dtype=name)
    assert torch.equal(open_cache(folder).read(0, 3), values.to(torch.bfloat16))


def test_a_row_that_is_not_finite_is_named_with_its_shard(tmp_path):
    values = random_rows(6, torch.float32)
    values[4, 2] = 3.4e38  # finite, but beyond bfloat16
    folder = write_cache(tmp_path / "m/d/layer_out", values, (3,))
    with pytest.raises(StoreError, match=r"shard_1\.memmap: row 1 .*not finite"):
        open_cache(folder).read(0, 6)


def test_tokens_and_sequences_are_read_from_one_level_up(folder):
    cache = open_cache(folder)
    assert cache.tokens().tolist() == list(range(10))
    assert cache.sequence_ends().tolist() == [4, 4, 10]


def test_tokens_in_the_caches_own_folder_are_found(folder):
    shutil.move(folder.parent / "tokens.pt", folder / "tokens.pt")
    assert open_cache(folder).tokens().tolist() == list(range(10))


def test_tokens_that_the_config_disowns_are_of_another_collection(folder):
    edit(folder / "config.json", store_tokens=False, store_sequence_ranges=False)
    cache = open_cache(folder)
    assert (cache.tokens(), cache.sequence_ends()) == (None, None)


def test_a_config_of_before_there_were_tokens_is_read(folder):
    edit(folder / "config.json", store_tokens=None, store_sequence_ranges=None)
    for name in ("tokens.pt", "sequence_ranges.pt"):
        (folder.parent / name).unlink()
    cache = open_cache(folder)
    assert (cache.rows, cache.tokens(), cache.sequence_ends()) == (10, None, None)


def test_sequences_as_pairs_of_start_and_end_are_the_same(folder):
    torch.save(torch.tensor([[0, 4], [4, 4], [4, 10]]), folder.parent / "sequence_ranges.pt")
    assert open_cache(folder).sequence_ends().tolist() == [4, 4, 10]


def test_tokens_saved_on_a_gpu_are_read_without_one(folder, monkeypatch):
    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
    torch.save(torch.arange(10), folder.parent / "tokens.pt")
    archive = zipfile.ZipFile(folder.parent / "tokens.pt")
    assert b"cuda:0" in archive.read("tokens/data.pkl")
    assert open_cache(folder).tokens().tolist() == list(range(10))


class Evil:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("archive", [True, False])
def test_a_malicious_pickle_is_refused_and_not_run(folder, tmp_path, archive):
    file, marker = folder.parent / "tokens.pt", tmp_path / "owned"
    if archive:
        torch.save(Evil(marker), file)
    else:
        file.write_bytes(pickle.dumps(Evil(marker)))
    with pytest.raises(StoreError) as caught:
        open_cache(folder).tokens()
    assert not marker.exists()
    assert str(caught.value).startswith(f"{file}: ")
    assert "\n" not in str(caught.value)


def test_a_file_of_an_old_torch_is_refused_in_one_line(folder):
    torch.save(torch.arange(10), folder.parent / "tokens.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(StoreError, match=r"tokens\.pt: cannot be read .*save it again") as caught:
        open_cache(folder).tokens()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (torch.arange(9), r"shape \(9,\)"),
        (torch.zeros(10, 1, dtype=torch.int64), r"shape \(10, 1\)"),
        (torch.zeros(10), "float32"),
        (torch.zeros(10, dtype=torch.bool), "bool"),
        (torch.zeros(10, dtype=torch.int64).to_sparse(), "expected integers"),
        (list(range(10)), "holds a list"),
        ({"tokens": torch.arange(10)}, "holds a dict"),
    ],
)
def test_what_are_not_the_tokens_of_the_rows_is_refused(folder, value, found):
    torch.save(value, folder.parent / "tokens.pt")
    with pytest.raises(StoreError, match=found):
        open_cache(folder).tokens()


@pytest.mark.parametrize(
    "ranges",
    [
        [0, 4, 9],
        [1, 4, 10],
        [0, 6, 4, 10],
        [10],
        [],
        [[0, 4], [5, 10]],
        [[0, 4, 10]],
    ],
)
def test_sequences_that_do_not_cover_the_rows_are_refused(folder, ranges):
    torch.save(torch.tensor(ranges, dtype=torch.int64), folder.parent / "sequence_ranges.pt")
    with pytest.raises(StoreError, match=r"sequence_ranges\.pt: .* are not sequences from row 0"):
        open_cache(folder).sequence_ends()


def broken(change):
    return pytest.param(change, id=change.__name__)


def no_config(folder):
    (folder / "config.json").unlink()
    return "config.json", "name the folder"


def config_of_something_else(folder):
    (folder / "config.json").write_text('{"model_type": "llama"}')
    return "config.json", "shard_count is None"


def config_that_is_no_object(folder):
    (folder / "config.json").write_text("[" * 100_000)
    return "config.json", "cannot be read as JSON"


def count_that_is_no_number(folder):
    edit(folder / "config.json", shard_count=True)
    return "config.json", "shard_count is True"


def missing_shard(folder):
    (folder / "shard_1.memmap").unlink()
    return "shard_1.memmap", "is missing"


def missing_meta(folder):
    (folder / "shard_2.meta").unlink()
    return "shard_2.meta", "No such file"


def fewer_shards_than_rows(folder):
    edit(folder / "config.json", shard_count=2)
    return "", "2 shards hold 7 rows, config.json says 10"


def shape_beyond_the_file(folder):
    edit(folder / "shard_0.meta", shape=[5, WIDTH])
    return "shard_0.memmap", f"has 40 bytes, its .meta says [5, {WIDTH}] torch.bfloat16, 50 bytes"


def cut_file(folder):
    os.truncate(folder / "shard_0.memmap", 39)
    return "shard_0.memmap", "has 39 bytes"


def unknown_dtype(folder):
    edit(folder / "shard_0.meta", dtype="torch.int8")
    return "shard_0.meta", "dtype 'torch.int8' is not known"


def dtype_that_is_no_name(folder):
    edit(folder / "shard_0.meta", dtype=["torch.float32"])
    return "shard_0.meta", "dtype ['torch.float32'] is not known"


def other_width(folder):
    edit(folder / "config.json", d_model=4)
    return "shard_0.meta", f"shape [4, {WIDTH}], expected [rows, 4]"


def negative_shape(folder):
    edit(folder / "shard_0.meta", shape=[-4, WIDTH])
    return "shard_0.meta", f"shape [-4, {WIDTH}]"


def missing_tokens(folder):
    (folder.parent / "tokens.pt").unlink()
    return "../tokens.pt", "no such file, but store_tokens is set"


@pytest.mark.parametrize(
    "change",
    [
        broken(change)
        for change in (
            *(no_config, config_of_something_else, config_that_is_no_object),
            *(count_that_is_no_number, missing_shard, missing_meta, fewer_shards_than_rows),
            *(shape_beyond_the_file, cut_file, unknown_dtype, dtype_that_is_no_name),
            *(other_width, negative_shape, missing_tokens),
        )
    ],
)
def test_a_broken_cache_is_one_line_that_names_the_file_and_what_is_wrong(folder, change):
    name, words = change(folder)
    with pytest.raises(StoreError) as caught:
        open_cache(folder)
    message = str(caught.value)
    assert message.startswith(f"{os.path.normpath(folder / name)}: ")
    assert words in message
    assert "\n" not in message


def test_a_file_is_no_cache(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be read as JSON"):
        open_cache(tmp_path / "file")


def changed_value(folder):
    data = np.fromfile(folder / "shard_1.memmap", np.int16)
    data[0] ^= 1
    data.tofile(folder / "shard_1.memmap")


def changed_token(folder):
    torch.save(torch.arange(10).flip(0), folder.parent / "tokens.pt")


def changed_sequences(folder):
    torch.save(torch.tensor([0, 5, 10]), folder.parent / "sequence_ranges.pt")


def changed_config(folder):
    edit(folder / "config.json", context_len=17)


def cut_otherwise(folder):
    write_cache(folder, open_cache(folder).read(0, 10), (5, 5), torch.arange(10))


@pytest.mark.parametrize(
    "change", [changed_value, changed_token, changed_sequences, changed_config, cut_otherwise]
)
def test_the_fingerprint_tells_of_a_change(folder, change):
    before = open_cache(folder).fingerprint()
    change(folder)
    assert open_cache(folder).fingerprint() != before


def test_the_fingerprint_is_the_same_elsewhere_and_whatever_the_saved_means(folder, tmp_path):
    before = open_cache(folder).fingerprint()
    moved = tmp_path / "elsewhere"
    shutil.move(tmp_path / "model", moved)
    torch.save(torch.zeros(WIDTH), moved / "data/layer_1_out/mean.pt")
    edit(moved / "data/layer_1_out/config.json", model_path="/home/somebody/model")
    cache = open_cache(moved / "data/layer_1_out")
    assert cache.fingerprint() == before
    assert "somebody" not in json.dumps(cache.recorded)
