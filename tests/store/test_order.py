import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from store.order import Window, epoch_order, window_permutation

sizes = st.lists(st.integers(0, 40), min_size=1, max_size=30).map(np.array)
window_sizes = st.integers(1, 12)
seeds = st.integers(0, 2**40)
epochs = st.integers(0, 1000)


@given(sizes, window_sizes, seeds, epochs)
def test_every_chunk_with_rows_is_in_exactly_one_window(sizes, window_chunks, seed, epoch):
    order = epoch_order(sizes, window_chunks, seed, epoch)
    seen = [chunk for window in order.windows for chunk in window.chunks]
    assert sorted(seen) == [chunk for chunk, rows in enumerate(sizes) if rows]


@given(sizes, window_sizes, seeds, epochs)
def test_windows_lie_end_to_end_over_all_rows(sizes, window_chunks, seed, epoch):
    windows = epoch_order(sizes, window_chunks, seed, epoch).windows
    ends = np.cumsum([window.rows for window in windows]).tolist()
    assert [window.start for window in windows] == [0, *ends][: len(windows)]
    assert sum(window.rows for window in windows) == sum(sizes)


@given(sizes, window_sizes, seeds)
def test_no_window_has_more_chunks_than_asked(sizes, window_chunks, seed):
    order = epoch_order(sizes, window_chunks, seed, 0)
    assert all(len(window.chunks) <= window_chunks for window in order.windows)


@given(sizes, window_sizes, seeds, st.data())
def test_window_at_finds_the_window_that_holds_a_position(sizes, window_chunks, seed, data):
    assume(sum(sizes))
    position = data.draw(st.integers(0, sum(sizes) - 1))
    window = epoch_order(sizes, window_chunks, seed, 0).window_at(position)
    assert window.start <= position < window.start + window.rows


@given(sizes, window_sizes, seeds)
def test_no_window_holds_only_a_leftover(sizes, window_chunks, seed):
    counts = [len(window.chunks) for window in epoch_order(sizes, window_chunks, seed, 0).windows]
    assert max(counts) - min(counts) <= 1


@given(st.integers(0, 300), seeds, epochs, st.integers(0, 1000))
def test_a_window_is_permuted_without_loss(rows, seed, epoch, number):
    window = Window(epoch, number, (0,), 0, rows)
    assert sorted(window_permutation(seed, window)) == list(range(rows))


@given(st.integers(0, 2**70), st.integers(0, 2**70))
def test_another_seed_permutes_a_window_otherwise(seed, other):
    assume(seed != other)
    window = Window(0, 0, (0,), 0, 60)
    assert window_permutation(seed, window).tolist() != window_permutation(other, window).tolist()


def test_every_row_is_as_likely_at_every_place():
    """Chi-squared over 36 cells of 3,000 permutations: above 72 once in 4,000 tries."""
    counts = np.zeros((6, 6))
    for number in range(3000):
        order = window_permutation(0, Window(0, number, (0,), 0, 6))
        counts[np.arange(6), order] += 1
    assert ((counts - 500) ** 2 / 500).sum() < 72


def test_order_is_a_function_of_its_arguments():
    sizes = np.full(20, 5)
    assert epoch_order(sizes, 4, 1, 2).windows == epoch_order(sizes, 4, 1, 2).windows


def test_another_seed_gives_another_order_of_chunks():
    sizes = np.full(20, 5)
    assert epoch_order(sizes, 4, 1, 0).windows != epoch_order(sizes, 4, 2, 0).windows


def test_another_epoch_gives_another_order_of_chunks():
    sizes = np.full(20, 5)
    first, second = (epoch_order(sizes, 4, 1, epoch).windows for epoch in (0, 1))
    assert [window.chunks for window in first] != [window.chunks for window in second]


def test_orders_stay_what_they_were_when_checkpoints_were_written():
    """A loader's state is a position in this order: a change here breaks every running training."""
    windows = epoch_order(np.array([3, 0, 5, 2]), 2, 7, 1).windows
    assert [(w.chunks, w.start, w.rows) for w in windows] == [((2, 3), 0, 7), ((0,), 7, 3)]
    assert window_permutation(7, Window(1, 0, (0,), 0, 9)).tolist() == [8, 7, 1, 5, 3, 4, 0, 6, 2]
