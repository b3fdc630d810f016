from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import StoreError
from store.loader import LoaderOptions, ShuffledLoader
from store.stream import shares

weights = st.lists(st.integers(1, 50), min_size=1, max_size=5)


@given(weights, st.lists(st.integers(0, 10**12), min_size=2, max_size=5))
def test_a_mixture_cut_anywhere_takes_the_same_rows_of_every_store(weights, cuts):
    cuts = sorted(cuts)
    whole = shares(weights, cuts[0], cuts[-1])
    pieces = [shares(weights, start, stop) for start, stop in pairwise(cuts)]
    for number, (start, stop) in enumerate(whole):
        mine = [piece[number] for piece in pieces]
        assert mine[0][0] == start
        assert mine[-1][1] == stop
        assert all(left[1] == right[0] for left, right in pairwise(mine))


@given(weights, st.integers(0, 10**15), st.integers(0, 10**6))
def test_every_stretch_of_a_mixture_is_filled_in_proportion(weights, start, length):
    found = [stop - first for first, stop in shares(weights, start, start + length)]
    assert sum(found) == length
    for weight, rows in zip(weights, found, strict=True):
        assert abs(rows - Fraction(weight * length, sum(weights))) <= 2


@pytest.fixture(scope="module")
def stores(build_store, make_block, tmp_path_factory):
    folder = tmp_path_factory.mktemp("mixture")
    return [
        build_store(folder / f"{n}.zarr", [[make_block(lengths, seed=n)]])
        for n, lengths in enumerate([(20, 30, 40), (10, 10), (100, 5)])
    ]


def mixture(stores, weights=None, **changes):
    return ShuffledLoader(stores, LoaderOptions(**{"batch_rows": 24, **changes}), weights)


def store_of(stores, rows):
    return np.searchsorted(np.cumsum([store.rows for store in stores]), rows, side="right")


def test_batches_hold_the_stores_by_their_weights(stores):
    loader = mixture(stores, [2, 1, 1])
    for batch in range(20):
        counts = np.bincount(store_of(stores, loader.read(batch).rows), minlength=3)
        assert counts.tolist() == [12, 6, 6]


def test_without_weights_every_row_comes_as_often(stores):
    total = sum(store.rows for store in stores)
    rows = mixture(stores, batch_rows=total).read(3).rows
    assert sorted(rows.tolist()) == list(range(total))


def test_a_mixture_holds_the_rows_that_it_names(stores):
    stored = torch.cat([s.activations("a.mid", c) for s in stores for c in range(s.chunks)])
    for number in range(10):
        batch = mixture(stores, [1, 2, 0.5]).read(number)
        assert torch.equal(batch.activations["a.mid"], stored[torch.from_numpy(batch.rows)])


def test_ranks_share_a_mixture(stores):
    alone = mixture(stores, [3, 1, 2])
    ranks = [mixture(stores, [3, 1, 2], ranks=3, rank=rank) for rank in range(3)]
    for batch in range(10):
        joined = np.concatenate([mine.read(batch).rows for mine in ranks])
        assert sorted(joined.tolist()) == sorted(alone.read(batch).rows.tolist())


def test_two_copies_of_a_store_are_not_read_in_step(stores):
    rows = mixture([stores[0], stores[0]], [1, 1]).read(0).rows
    assert (rows[:12] + stores[0].rows).tolist() != rows[12:].tolist()


def test_a_state_of_other_weights_is_refused(stores):
    state = mixture(stores, [1, 1, 1]).state_dict()
    with pytest.raises(StoreError, match="weights"):
        mixture(stores, [1, 1, 2]).load_state_dict(state)


def test_stores_of_other_hookpoints_are_refused(stores, build_store, make_schema, tmp_path):
    other = build_store(tmp_path / "other.zarr", schema=make_schema(widths=(6, 12)))
    with pytest.raises(StoreError, match=r"b\.mid \(12\).*b\.mid \(10\)"):
        mixture([stores[0], other])


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf")])
def test_a_store_without_weight_is_refused(stores, weight):
    with pytest.raises(StoreError, match="must be finite and above zero"):
        mixture(stores, [1, weight, 1])


def test_weights_may_be_any_numbers(stores):
    rows = mixture(stores, np.array([2, 1, 1], np.float32)).read(0).rows
    assert rows.tolist() == mixture(stores, [0.5, 0.25, 0.25]).read(0).rows.tolist()


def test_no_store_at_all_is_refused():
    with pytest.raises(StoreError, match="at least one store"):
        mixture([])


def test_a_weight_for_every_store_is_asked_for(stores):
    with pytest.raises(StoreError, match="3 stores, but 2 weights"):
        mixture(stores, [1, 1])
