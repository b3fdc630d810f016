import numpy as np
import pytest
import tensorstore
import torch
import zarr
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import StoreError
from store import int8
from store.bfloat16 import NATIVE as BFLOAT16
from store.chunks import check_chunk, map_chunk, write_chunk
from store.layout import Layout, default_chunk_rows
from store.schema import Hookpoint

CODECS = ["none", "lossless", "int8"]
VALUES = np.random.default_rng(0).normal(size=(32, 130)).astype(BFLOAT16)


def bits(values) -> np.ndarray:
    return np.asarray(values).view(np.uint16)


def bits_of(tensor) -> np.ndarray:
    return tensor.contiguous().view(torch.int16).numpy().view(np.uint16)


def layout(codec):
    return Layout(32, (130,), BFLOAT16, codec)


@given(st.integers(1, 1 << 24))
def test_default_chunks_are_tens_of_megabytes_whatever_the_width(width):
    rows = default_chunk_rows([Hookpoint("a", "a", width), Hookpoint("b", "b", 1)])
    assert rows >= 1024
    assert rows & (rows - 1) == 0
    if width <= 8192:
        assert 11e6 < rows * width * 2 < 24e6


@pytest.mark.parametrize("codec", CODECS)
def test_a_chunk_is_read_as_it_was_written(tmp_path, codec):
    this = layout(codec)
    write_chunk(tmp_path / "c", this.to_stored(VALUES), this)
    expected = int8.decode(int8.encode(VALUES), 130) if codec == "int8" else VALUES
    for read in (map_chunk, check_chunk):
        found = this.from_stored(read(tmp_path / "c", this))
        np.testing.assert_array_equal(bits(found), bits(expected))


@pytest.mark.parametrize("codec", CODECS)
def test_zarr_reads_every_codec(build_store, make_schema, tmp_path, codec):
    store = build_store(tmp_path / "store.zarr", schema=make_schema(codec=codec))
    group = zarr.open_group(store.path, mode="r")
    for name in ("a.mid", "b.mid"):
        found = np.asarray(group[f"parts/00000/activations/{name}"][:])
        ours = [bits_of(store.activations(name, chunk)) for chunk in range(store.chunks)]
        np.testing.assert_array_equal(bits(found), np.concatenate(ours))


@pytest.mark.parametrize("codec", ["none", "lossless"])
def test_tensorstore_reads_what_is_of_the_standard(build_store, make_schema, tmp_path, codec):
    store = build_store(tmp_path / "store.zarr", schema=make_schema(codec=codec))
    path = store.path / "parts/00000/activations/b.mid"
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path)}}
    found = tensorstore.open(spec).result().read().result()
    ours = np.concatenate([bits_of(store.activations("b.mid", c)) for c in range(store.chunks)])
    np.testing.assert_array_equal(bits(found), ours)


@pytest.mark.parametrize("codec", ["none", "int8"])
def test_mapped_codecs_copy_nothing(tmp_path, codec):
    this = layout(codec)
    write_chunk(tmp_path / "c", this.to_stored(VALUES), this)
    assert this.mapped
    assert (tmp_path / "c").stat().st_size == this.chunk_bytes + 4
    maps = "/proc/self/maps"
    held = map_chunk(tmp_path / "c", this)
    assert held is not None
    with open(maps) as lines:
        assert any(str(tmp_path / "c") in line for line in lines)


def test_lossless_chunks_of_real_spread_are_smaller(tmp_path):
    this = Layout(4096, (128,), BFLOAT16, "lossless")
    values = np.random.default_rng(0).normal(size=(4096, 128)).astype(BFLOAT16)
    write_chunk(tmp_path / "c", values, this)
    assert (tmp_path / "c").stat().st_size < 0.8 * this.chunk_bytes


@pytest.mark.parametrize("codec", CODECS)
@given(data=st.data())
def test_a_flipped_byte_is_found_in_every_codec(tmp_path_factory, codec, data):
    file, this = tmp_path_factory.mktemp("chunk") / "c", layout(codec)
    write_chunk(file, this.to_stored(VALUES), this)
    raw = bytearray(file.read_bytes())
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] ^= data.draw(st.integers(1, 255))
    file.write_bytes(raw)
    with pytest.raises(StoreError, match="checksum"):
        check_chunk(file, this)


@given(st.binary(max_size=200))
def test_a_lossless_chunk_of_anything_else_is_refused_without_a_check(tmp_path_factory, junk):
    file = tmp_path_factory.mktemp("chunk") / "c"
    file.write_bytes(junk)
    with pytest.raises(StoreError, match="chunk"):
        map_chunk(file, layout("lossless"))
