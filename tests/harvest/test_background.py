"""Threads beside the forward passes: order is kept, and no error is lost."""

import threading

import pytest

from harvest.background import Background, ahead


def test_items_come_in_order_and_one_ahead():
    started = []

    def items():
        for number in range(4):
            started.append(number)
            yield number

    assert list(ahead(items())) == [0, 1, 2, 3]
    assert started == [0, 1, 2, 3]


def test_an_error_while_planning_reaches_the_caller():
    def items():
        yield 1
        raise ValueError("planning failed")

    found = []
    with pytest.raises(ValueError, match="planning failed"):
        found.extend(ahead(items()))


def test_work_is_done_in_order_and_before_the_context_ends():
    done = []
    with Background(done.append) as background:
        for number in range(20):
            background.put(number)
    assert done == list(range(20))


def test_after_an_error_nothing_more_is_worked_on_and_the_caller_hears_of_it():
    done = []

    def work(item):
        if item == 1:
            raise OSError("disk full")
        done.append(item)

    def put_many():
        with Background(work) as background:
            for number in range(100):
                background.put(number)

    with pytest.raises(OSError, match="disk full"):
        put_many()
    assert done == [0]


def test_no_more_than_depth_items_wait():
    go = threading.Event()
    background = Background(lambda _: go.wait(10), depth=2)
    put = []

    def fill():
        with background:
            for number in range(6):
                background.put(number)
                put.append(number)

    thread = threading.Thread(target=fill)
    thread.start()
    thread.join(0.3)
    assert len(put) <= 3
    go.set()
    thread.join()
    assert len(put) == 6
