import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from store.order import epoch_order, window_permutation

sizes = st.lists(st.integers(0, 40), min_size=1, max_size=30).map(tuple)
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


@given(st.integers(0, 300), seeds, epochs, st.integers(0, 1000))
def test_a_window_is_permuted_without_loss(rows, seed, epoch, window):
    assert sorted(window_permutation(rows, seed, epoch, window)) == list(range(rows))


def test_order_is_a_function_of_its_arguments():
    epoch_order.cache_clear()
    first = epoch_order((5,) * 20, 4, 1, 2)
    epoch_order.cache_clear()
    assert epoch_order((5,) * 20, 4, 1, 2).windows == first.windows


def test_another_seed_gives_another_order_of_chunks():
    assert epoch_order((5,) * 20, 4, 1, 0).windows != epoch_order((5,) * 20, 4, 2, 0).windows


def test_another_epoch_gives_another_order_of_chunks():
    assert epoch_order((5,) * 20, 4, 1, 0).windows != epoch_order((5,) * 20, 4, 1, 1).windows


def test_two_windows_of_one_size_are_permuted_differently():
    first, second = (window_permutation(50, 0, 0, window) for window in (0, 1))
    assert first.tolist() != second.tolist()


def test_the_order_of_rows_is_the_one_that_old_checkpoints_were_made_with():
    """A resumed run needs it; numpy may change its generators between versions."""
    assert epoch_order((2, 0, 3, 1, 4), 2, 5, 1).windows[0].chunks == (2, 0)
    assert window_permutation(6, 5, 1, 0).tolist() == [3, 0, 1, 5, 4, 2]
