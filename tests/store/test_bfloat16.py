import struct
import warnings

import ml_dtypes
import numpy as np
import pytest
import tensorstore
import torch
import zarr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import store.bfloat16
from store.bfloat16 import NATIVE, all_finite, narrowed, widened
from store.schema import chunk_file


def crc32c(data: bytes) -> int:
    """Bit by bit, from the polynomial: independent of the library that the store uses."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 & -(crc & 1))
    return crc ^ 0xFFFFFFFF


@pytest.fixture
def store_and_values(build_store, make_block, tmp_path):
    block = make_block((7, 0, 14), seed=3)
    return build_store(tmp_path / "store.zarr", [[block]]), block


def test_the_reference_crc_gives_the_published_check_value():
    assert crc32c(b"123456789") == 0xE3069283


def test_zarr_python_stores_bfloat16_under_the_name_of_the_extension():
    array = zarr.create_array(store={}, shape=(3, 2), dtype=store.bfloat16.NATIVE)
    assert array.metadata.to_dict()["data_type"] == "bfloat16"


@pytest.mark.parametrize("fill", [0, 1.5, -float("inf"), float("nan")])
def test_zarr_python_reopens_a_bfloat16_array_with_its_fill_value(fill, tmp_path):
    zarr.create_array(tmp_path / "x", shape=(3,), dtype=store.bfloat16.NATIVE, fill_value=fill)
    found = np.asarray(zarr.open_array(tmp_path / "x", mode="r")[:])
    np.testing.assert_array_equal(found.astype(float), np.full(3, fill))


def test_a_full_chunk_file_mapped_by_numpy_is_the_exact_bytes(store_and_values):
    reader, block = store_and_values
    file = chunk_file(reader.parts[0].folder / "activations" / "b.mid", 0, 2)
    mapped = np.memmap(file, dtype=np.uint8, mode="r")[:-4]
    expected = block.activations["b.mid"][:16].view(torch.int16).numpy().astype("<i2").tobytes()
    assert mapped.tobytes() == expected


def test_an_edge_chunk_is_padded_with_zeros_to_its_full_size(store_and_values):
    reader, _ = store_and_values
    file = chunk_file(reader.parts[0].folder / "activations" / "b.mid", 1, 2)
    assert file.read_bytes()[5 * 20 : -4] == bytes(11 * 20)


def test_four_bytes_of_little_endian_crc32c_follow_the_values(store_and_values):
    reader, _ = store_and_values
    data = chunk_file(reader.parts[0].folder / "activations" / "a.mid", 1, 2).read_bytes()
    assert struct.unpack("<I", data[-4:])[0] == crc32c(data[:-4])


ARRAYS = {
    "activations/a.mid": lambda block: block.activations["a.mid"],
    "activations/b.mid": lambda block: block.activations["b.mid"],
    "rows/document": lambda block: block.document,
    "rows/char_start": lambda block: block.char_start,
    "rows/char_end": lambda block: block.char_end,
    "rows/token_a": lambda block: block.tokens["a"],
    "rows/token_b": lambda block: block.tokens["b"],
    "documents/text": lambda block: list("".join(block.texts).encode("utf-8", "surrogatepass")),
    "documents/text_end": lambda block: np.cumsum(
        [len(text.encode("utf-8", "surrogatepass")) for text in block.texts]
    ),
    "documents/label": lambda block: [
        list(dict.fromkeys(block.labels)).index(label) for label in block.labels
    ],
}


def as_floats(values) -> np.ndarray:
    if isinstance(values, torch.Tensor):
        return values.double().numpy()
    return np.asarray(values).astype(np.float64)


@pytest.mark.parametrize("name", ARRAYS)
def test_tensorstore_reads_the_same_values(name, store_and_values):
    reader, block = store_and_values
    folder = reader.parts[0].folder / name
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{folder}/"}}
    found = tensorstore.open(spec, read=True).result().read().result()
    np.testing.assert_array_equal(as_floats(found), as_floats(ARRAYS[name](block)))


@pytest.mark.parametrize("name", ARRAYS)
def test_zarr_python_reads_the_same_values(name, store_and_values):
    reader, block = store_and_values
    found = zarr.open_group(reader.path, mode="r")[f"parts/00000/{name}"][:]
    np.testing.assert_array_equal(as_floats(found), as_floats(ARRAYS[name](block)))


def test_tensorstore_calls_the_dtype_bfloat16(store_and_values):
    folder = store_and_values[0].parts[0].folder / "activations" / "a.mid"
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{folder}/"}}
    assert tensorstore.open(spec, read=True).result().dtype == tensorstore.bfloat16


def test_what_tensorstore_writes_zarr_python_reads(tmp_path):
    spec = {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": f"{tmp_path}/x/"},
        "metadata": {"shape": [5, 3], "data_type": "bfloat16"},
        "create": True,
    }
    values = np.arange(15).reshape(5, 3).astype(ml_dtypes.bfloat16)
    tensorstore.open(spec).result().write(values).result()
    np.testing.assert_array_equal(np.asarray(zarr.open_array(tmp_path / "x", mode="r")[:]), values)


def test_zarr_python_walks_the_whole_store_without_a_warning(store_and_values):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        group = zarr.open_group(store_and_values[0].path, mode="r")
        names = [name for name, _ in group.members(max_depth=None)]
    assert not caught
    assert {f"parts/00000/{name}" for name in ARRAYS} <= set(names)


def test_every_folder_of_the_store_is_a_group_or_an_array_to_zarr(store_and_values):
    reader, _ = store_and_values
    names = {name for name, _ in zarr.open_group(reader.path, mode="r").members(max_depth=None)}
    folders = {str(f.parent.relative_to(reader.path)) for f in reader.path.rglob("zarr.json")}
    assert names | {"."} == folders


ANY_BITS = hnp.arrays(np.uint16, 60, elements=st.integers(0, 2**16 - 1))


@given(hnp.arrays(np.float32, 50, elements=st.floats(-(2.0**126), 2.0**126, width=32)))
def test_narrowing_rounds_as_ml_dtypes_does(values):
    expected = values.astype(NATIVE).view(np.uint16)
    np.testing.assert_array_equal(narrowed(values).view(np.uint16), expected)


@given(ANY_BITS)
def test_widening_is_exact(bits):
    expected = torch.from_numpy(bits.view(np.int16)).view(torch.bfloat16).float().numpy()
    np.testing.assert_array_equal(widened(bits.view(NATIVE)), expected)


@given(ANY_BITS)
def test_nan_and_infinity_are_told_from_all_other_bits(bits):
    values = torch.from_numpy(bits.view(np.int16)).view(torch.bfloat16)
    assert all_finite(bits.view(NATIVE)) == bool(values.isfinite().all())


def test_one_nan_behind_many_values_is_found():
    values = np.ones((3, 400_000), NATIVE)
    assert all_finite(values)
    values[2, 399_999] = np.nan
    assert not all_finite(values)


def test_no_values_are_finite():
    assert all_finite(np.zeros((0, 5), NATIVE))
