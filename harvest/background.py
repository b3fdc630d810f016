"""Work beside the forward passes: the next block is planned, the last ones are written.

Two threads at most; tokenizers, checksums and file writes release the interpreter lock. Errors
of either thread are raised in the caller's.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import Queue
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")


def ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items, each computed in a thread while the one before is in use."""
    with ThreadPoolExecutor(1, thread_name_prefix="plan") as pool:
        end = object()
        future = pool.submit(next, items, end)
        while (item := future.result()) is not end:
            future = pool.submit(next, items, end)
            yield item  # type: ignore[misc]


class Background(Generic[T]):
    """Calls `work` on each item in order, in one thread, at most `depth` items behind.

    After a first error no further item is worked on; `put`, or leaving the context, raises it.
    Every item that was put is worked on before the context is left, whatever ends it.
    """

    def __init__(self, work: Callable[[T], None], depth: int = 2) -> None:
        self._work = work
        self._queue: Queue[T | None] = Queue(maxsize=depth)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="write")

    def put(self, item: T) -> None:
        """Hands over an item; waits while the queue is full."""
        if self._error is not None:
            raise self._error
        self._queue.put(item)

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            if self._error is None:
                try:
                    self._work(item)
                except BaseException as error:
                    self._error = error

    def __enter__(self) -> Background[T]:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._queue.put(None)
        self._thread.join()
        if self._error is not None and self._error is not error:
            raise self._error
