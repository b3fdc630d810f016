"""The shuffle buffer: every row leaves once, in random order, from memory that does not grow."""

from collections.abc import Iterator

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from harvest.live.shuffle import ShuffleBuffer, row_bytes, rows_put
from store.schema import Hookpoint

HOOKPOINTS = (Hookpoint("a.one", "a", 3), Hookpoint("b.two", "b", 5))


def rows_of(numbers: np.ndarray) -> dict[str, torch.Tensor]:
    """Rows that tell their number, which bfloat16 holds exactly in two digits of base 200."""
    digits = torch.from_numpy(np.stack([numbers // 200, numbers % 200], 1)).bfloat16()
    return {h.name: torch.nn.functional.pad(digits, (0, h.width - 2)) for h in HOOKPOINTS}


def empty(batch_rows: int) -> dict[str, torch.Tensor]:
    return {h.name: torch.empty(batch_rows, h.width, dtype=torch.bfloat16) for h in HOOKPOINTS}


def batches(
    buffer: ShuffleBuffer, batch_rows: int, pieces: Iterator[int]
) -> Iterator[tuple[np.ndarray, dict[str, torch.Tensor]]]:
    """Puts rows 0, 1, 2, ... in, in pieces of these sizes, and draws whatever is ready."""
    put = 0
    for size in pieces:
        numbers = put + np.arange(min(size, buffer.room))
        buffer.put(rows_of(numbers), numbers)
        put += len(numbers)
        while buffer.ready:
            outs = empty(batch_rows)
            yield buffer.draw(outs), outs


sizes = st.tuples(st.integers(1, 9), st.integers(0, 40)).map(lambda n: (n[0], 2 * n[0] + n[1]))
pieces = st.lists(st.integers(1, 30), min_size=5, max_size=60)


@given(sizes, pieces, st.integers(0, 2**70))
def test_every_row_leaves_at_most_once_with_its_own_activations(sizes, pieces, seed):
    batch_rows, rows = sizes
    buffer = ShuffleBuffer(HOOKPOINTS, rows, batch_rows, seed, 0)
    drawn: list[int] = []
    for numbers, activations in batches(buffer, batch_rows, iter(pieces)):
        assert len(numbers) == batch_rows
        wanted = rows_of(numbers)
        assert all(torch.equal(activations[name], wanted[name]) for name in wanted)
        drawn += numbers.tolist()
    assert len(set(drawn)) == len(drawn)


@given(sizes, st.integers(0, 9))
def test_what_has_not_left_is_still_there(sizes, seed):
    batch_rows, rows = sizes
    buffer = ShuffleBuffer(HOOKPOINTS, rows, batch_rows, seed, 0)
    drawn = []
    put = 0
    while buffer.refills < 6:
        numbers = put + np.arange(buffer.room)
        buffer.put(rows_of(numbers), numbers)
        put += len(numbers)
        while buffer.ready and buffer.refills < 6:
            drawn += buffer.draw(empty(batch_rows)).tolist()
    held = buffer.activations["a.one"].float().long()
    here = (200 * held[:, 0] + held[:, 1]).tolist()
    assert sorted(drawn + here) == list(range(put))


@given(sizes, pieces, st.integers(0, 2**20))
def test_it_never_takes_more_rows_than_it_has_places(sizes, pieces, seed):
    batch_rows, rows = sizes
    buffer = ShuffleBuffer(HOOKPOINTS, rows, batch_rows, seed, 0)
    for _ in batches(buffer, batch_rows, iter(pieces)):
        assert 0 <= buffer.room <= rows // 2
        assert all(len(held) == rows for held in buffer.activations.values())


@given(sizes, st.integers(0, 9), st.integers(1, 30), st.integers(1, 30))
def test_the_order_does_not_depend_on_when_rows_come(sizes, seed, one, other):
    batch_rows, rows = sizes
    orders = []
    for size in (one, other):
        buffer = ShuffleBuffer(HOOKPOINTS, rows, batch_rows, seed, 0)
        found = batches(buffer, batch_rows, iter([size] * (4 * rows // size + 8)))
        orders.append([number for batch, _ in found for number in batch.tolist()])
    shortest = min(map(len, orders))
    assert shortest
    assert orders[0][:shortest] == orders[1][:shortest]


@given(sizes, st.integers(1, 40))
def test_the_rows_that_batches_need_are_known_ahead(sizes, count):
    """As many as are put in, one at a time and no sooner than asked for, until they are drawn."""
    batch_rows, rows = sizes
    buffer = ShuffleBuffer(HOOKPOINTS, rows, batch_rows, 0, 0)
    put = 0
    for _ in range(count):
        while not buffer.ready:
            buffer.put(rows_of(np.array([put])), np.array([put]))
            put += 1
        buffer.draw(empty(batch_rows))
    assert put == rows_put(rows, batch_rows, count)


def test_a_batch_mixes_a_whole_buffer_of_documents():
    buffer = ShuffleBuffer(HOOKPOINTS, 2000, 64, seed=0, refills=0)
    found = [numbers for numbers, _ in batches(buffer, 64, iter([50] * 400))]
    documents = [len(set((numbers // 50).tolist())) for numbers in found]
    # Of 40 documents of 50 rows, 64 rows drawn at random are of 32, give or take 2; later on some
    # rows are from documents long ago.
    assert 30 < np.mean(documents[:15]) < 34
    assert min(documents) > 24
    assert np.mean(documents[100:]) > 36


def test_rows_wait_for_a_random_time():
    """A row is drawn in a round with a chance of a half, whatever it has waited."""
    buffer = ShuffleBuffer(HOOKPOINTS, 2048, 64, seed=0, refills=0)
    rounds: dict[int, int] = {}
    for numbers, _ in batches(buffer, 64, iter([64] * 600)):
        rounds.update(dict.fromkeys(numbers.tolist(), buffer.refills))
    first = [rounds.get(number, 99) for number in range(2048)]
    shares = [first.count(round_) / 2048 for round_ in (1, 2, 3)]
    assert np.allclose(shares, [1 / 2, 1 / 4, 1 / 8], atol=0.04)


def test_a_seed_and_a_later_beginning_have_orders_of_their_own():
    orders = set()
    for seed, refills in ((0, 0), (1, 0), (0, 5)):
        buffer = ShuffleBuffer(HOOKPOINTS, 400, 20, seed, refills)
        first, _ = next(batches(buffer, 20, iter([400])))
        orders.add(tuple(first.tolist()))
    assert len(orders) == 3


def test_a_corpus_that_is_smaller_shrinks_the_buffer_to_its_rows():
    buffer = ShuffleBuffer(HOOKPOINTS, 1000, 10, seed=0, refills=0)
    buffer.put(rows_of(np.arange(50)), np.arange(50))
    buffer.make_do()
    assert (buffer.rows, buffer.ready, buffer.room) == (50, True, 0)
    drawn = [buffer.draw(empty(10)) for _ in range(2)]
    assert not buffer.ready
    assert len(set(np.concatenate(drawn).tolist()) & set(range(50))) == 20


def test_too_few_rows_do_not_make_do():
    buffer = ShuffleBuffer(HOOKPOINTS, 1000, 10, seed=0, refills=0)
    buffer.put(rows_of(np.arange(19)), np.arange(19))
    buffer.make_do()
    assert (buffer.rows, buffer.ready, buffer.room) == (1000, False, 981)


def test_the_first_batch_can_be_looked_at_before_it_is_drawn():
    buffer = ShuffleBuffer(HOOKPOINTS, 100, 10, seed=0, refills=0)
    buffer.put(rows_of(np.arange(100)), np.arange(100))
    first, outs = buffer.first(), empty(10)
    buffer.draw(outs)
    assert all(torch.equal(first[name], outs[name]) for name in outs)


def test_a_row_costs_what_is_said():
    buffer = ShuffleBuffer(HOOKPOINTS, 1000, 10, seed=0, refills=0)
    held = sum(x.numel() * x.element_size() for x in buffer.activations.values())
    assert row_bytes(HOOKPOINTS) * 1000 == held + 16 * 1000
