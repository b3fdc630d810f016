import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from store import int8
from store.bfloat16 import NATIVE as BFLOAT16
from store.int8_codec import NAME, Int8RowsCodec

FINITE = st.integers(0, 2**16 - 1).filter(lambda bits: bits & 0x7F80 != 0x7F80)


@st.composite
def bfloat16_rows(draw):
    """Any finite bits, subnormals and both zeros among them."""
    shape = (draw(st.integers(0, 5)), draw(st.sampled_from([1, 3, 127, 128, 129, 300])))
    return draw(hnp.arrays(np.uint16, shape, elements=FINITE)).view(BFLOAT16)


def plainly_encoded(row: np.ndarray) -> tuple[list[float], list[int]]:
    """Scales and bytes of one row, from the description alone."""
    scales, quantized = [], []
    for start in range(0, len(row), 128):
        group = [float(value) for value in row[start : start + 128]]
        scale = float(np.float32(max(abs(value) for value in group)) / np.float32(127))
        scales.append(scale)
        quantized += [round(value / scale) if scale else 0 for value in group]
    return scales, quantized


@given(bfloat16_rows())
@settings(max_examples=60, deadline=None)
def test_the_error_is_at_most_half_a_step_and_the_rounding(values):
    found = int8.decode(int8.encode(values), values.shape[1]).astype(np.float64)
    exact = values.astype(np.float64)
    for start in range(0, values.shape[1], int8.GROUP):
        here = exact[:, start : start + int8.GROUP]
        step = abs(here).max(axis=1, keepdims=True) / 127
        rounding = abs(here) * 2.0**-8 + step * 2.0**-8 + 2.0**-119
        assert np.all(abs(found[:, start : start + int8.GROUP] - here) <= step / 2 + rounding)


@given(bfloat16_rows())
@settings(max_examples=60, deadline=None)
def test_zeros_stay_zeros(values):
    found = int8.decode(int8.encode(values), values.shape[1])
    assert np.all(found[values == 0] == 0)


def test_a_record_is_what_its_description_says():
    values = np.random.default_rng(1).normal(size=(4, 300)).astype(BFLOAT16)
    records = int8.encode(values)
    assert records.shape == (4, 4 * 3 + 300)
    for record, row in zip(records, values, strict=True):
        scales, quantized = plainly_encoded(row)
        np.testing.assert_allclose(record[:12].view("<f4"), scales, rtol=1e-7)
        # A tie may fall either way, as the program multiplies where the description divides.
        assert np.abs(record[12:].view(np.int8) - np.array(quantized)).max() <= 1
        assert np.mean(record[12:].view(np.int8) == quantized) > 0.99


def test_one_enormous_channel_costs_only_its_group():
    values = np.random.default_rng(1).normal(size=(50, 512)).astype(np.float32)
    values[:, 7] = 20_000
    found = int8.decode(int8.encode(values.astype(BFLOAT16)), 512).astype(np.float32)
    error = abs(found - values).max(axis=0)
    assert error[:128].max() > 0.5
    assert error[128:].max() < 0.03


def test_a_row_is_encoded_alike_whatever_its_neighbours():
    values = np.random.default_rng(1).normal(size=(20, 200)).astype(BFLOAT16)
    alone = np.concatenate([int8.encode(values[n : n + 1]) for n in range(20)])
    np.testing.assert_array_equal(int8.encode(values), alone)


def test_zarr_itself_writes_and_reads_the_codec(tmp_path):
    values = np.random.default_rng(2).normal(size=(10, 130)).astype(BFLOAT16)
    array = zarr.create_array(
        tmp_path / "x",
        shape=values.shape,
        chunks=(4, 130),
        dtype=BFLOAT16,
        serializer=Int8RowsCodec(),
        compressors=None,
    )
    array[:] = values
    expected = int8.decode(int8.encode(values), 130)
    found = np.asarray(zarr.open_array(tmp_path / "x", mode="r")[:])
    np.testing.assert_array_equal(found.view(np.uint16), expected.view(np.uint16))
    assert (tmp_path / "x/c/0/0").read_bytes() == int8.encode(values[:4]).tobytes()


def test_other_programs_with_this_package_find_the_codec_by_its_name(tmp_path):
    from importlib.metadata import entry_points

    (entry,) = entry_points(group="zarr.codecs", name=NAME)
    assert entry.load() is Int8RowsCodec


def test_a_group_size_of_another_version_is_refused():
    with pytest.raises(ValueError, match="reads group 128"):
        Int8RowsCodec.from_dict({"name": NAME, "configuration": {"group": 64}})


def test_only_rows_of_bfloat16_can_be_stored(tmp_path):
    with pytest.raises(ValueError, match=r"stores \(rows, width\) of bfloat16"):
        zarr.create_array(
            tmp_path / "x",
            shape=(4, 4),
            chunks=(4, 4),
            dtype=np.int32,
            serializer=Int8RowsCodec(),
            compressors=None,
        )
