"""Packing of windows into forward passes."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from harvest.batches import pack


@given(st.lists(st.integers(1, 300), max_size=60), st.integers(1, 1000))
def test_every_window_runs_once_and_only_a_lone_window_exceeds_the_limit(lengths, batch_tokens):
    lengths = np.array(lengths, np.int64)
    batches = pack(lengths, batch_tokens)
    assert sorted(np.concatenate([np.zeros(0, int), *batches])) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * lengths[batch].max() <= batch_tokens


def test_windows_of_similar_length_run_together_longest_first():
    batches = pack(np.array([10, 100, 11, 90], np.int64), 200)
    assert [batch.tolist() for batch in batches] == [[1, 3], [2, 0]]
