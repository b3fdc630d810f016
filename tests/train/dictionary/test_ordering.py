"""The stable order against Python's own."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from train.dictionary.ordering import stable_order


@given(st.sampled_from([1, 7, 2**16, 2**16 + 1, 2**31]), st.data())
def test_keys_are_sorted_and_equal_ones_stay_in_order(limit, data):
    keys = data.draw(st.lists(st.integers(0, limit - 1), max_size=60))
    wanted = sorted(range(len(keys)), key=keys.__getitem__)
    assert stable_order(torch.tensor(keys, dtype=torch.int64), limit).tolist() == wanted
