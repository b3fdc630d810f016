import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import StoreError
from store.seal import canonical, crc32c, read_sealed, sealed, unsealed, write_sealed

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=9,
)  # fmt: skip
ATTRIBUTES = st.dictionaries(st.text(max_size=9).filter(lambda key: key != "crc32c"), VALUES)


def test_the_checksum_gives_the_published_check_value():
    assert crc32c(b"123456789") == "e3069283"


@given(ATTRIBUTES)
@settings(deadline=None)
def test_attributes_read_back_as_they_were_written(memory_folder, attributes):
    write_sealed(memory_folder, attributes)
    assert read_sealed(memory_folder, "") == attributes


@given(ATTRIBUTES)
def test_the_order_of_keys_does_not_matter(attributes):
    turned = dict(reversed(attributes.items()))
    assert sealed(attributes)["crc32c"] == sealed(turned)["crc32c"]


@given(ATTRIBUTES, ATTRIBUTES)
def test_other_attributes_have_another_checksum(one, other):
    if canonical(one) != canonical(other):
        assert sealed(one)["crc32c"] != sealed(other)["crc32c"]


def test_unsealed_is_the_inverse_of_sealed():
    assert unsealed(sealed({"rows": 1})) == {"rows": 1}


def test_attributes_without_a_checksum_are_refused(tmp_path):
    (tmp_path / "zarr.json").write_text(json.dumps({"attributes": {"rows": 1}}))
    with pytest.raises(StoreError, match=r"zarr\.json: checksum .*, expected None.*; the remedy"):
        read_sealed(tmp_path, "the remedy")


def test_infinity_has_no_checksum():
    with pytest.raises(ValueError, match="JSON compliant"):
        sealed({"mean": float("inf")})
