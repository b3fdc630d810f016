"""How fast rows come, by a clock that is made up here."""

from collections.abc import Callable, Generator
from types import SimpleNamespace

import numpy as np
import pytest

import harvest.live.pace
from harvest.live.pace import Pace, measure_pace
from harvest.live.refill import Position
from pipeline.errors import CorpusError


def corpus(blocks: list[int], seconds: Callable[[], None]) -> object:
    """Blocks of four documents with so many rows."""

    def read(
        position: Position, before_pass: Callable[[], None]
    ) -> Generator[tuple[SimpleNamespace, Position], None, None]:
        seconds()
        for number, rows in enumerate(blocks):
            yield SimpleNamespace(document=np.zeros(rows)), Position(4 * (number + 1))

    return read


def test_the_first_block_with_rows_is_timed_after_a_warm_up(monkeypatch):
    takes = iter([100.0, 5.0])
    now = 0.0

    def work() -> None:
        nonlocal now
        now += next(takes)

    clock = SimpleNamespace(perf_counter=lambda: now)
    monkeypatch.setattr(harvest.live.pace, "time", clock)
    assert measure_pace(corpus([0, 40, 99], work)) == Pace(8.0, 5.0)


def test_a_corpus_without_rows_is_refused():
    with pytest.raises(CorpusError, match="gives no rows to train on"):
        measure_pace(corpus([0, 0], lambda: None))
