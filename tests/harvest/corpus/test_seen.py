"""The compact set agrees with Python's."""

from unittest import mock

from hypothesis import given
from hypothesis import strategies as st

from harvest.corpus.seen import HashSet

HASHES = st.lists(st.one_of(st.integers(0, 20), st.integers(0, 2**64 - 1)), max_size=60)


@given(HASHES, HASHES)
def test_a_hash_is_new_once(before, added):
    known = set(before)
    with mock.patch("harvest.corpus.seen.MOST_RECENT", 7):
        found = HashSet(before)
        for value in added:
            assert found.add(value) == (value not in known)
            known.add(value)
