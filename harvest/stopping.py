"""Ends a harvest in an orderly way when it is told to stop: by Ctrl-C, or by a batch system."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stopped(Exception):
    """A signal asked for the end of the work."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


class StopSignal:
    """Remembers that SIGTERM or SIGINT came; the work asks at points where it can stop."""

    def __init__(self) -> None:
        self._number = 0

    def raise_if_set(self) -> None:
        """Raises Stopped if a signal has come."""
        if self._number:
            raise Stopped(self._number)

    def note(self, number: int, _frame: FrameType | None) -> None:
        """The signal handler; the same signal once more has its usual effect, at once."""
        self._number = number
        signal.signal(number, signal.SIG_DFL)


@contextmanager
def stop_signal() -> Iterator[StopSignal]:
    """A StopSignal that listens while the context lasts; in the main thread only, else it is deaf.

    What was set to be ignored (Ctrl-C in a background job) stays ignored.
    """
    found = StopSignal()
    if threading.current_thread() is not threading.main_thread():
        yield found
        return
    usual = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number, handler in usual.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, found.note)
    try:
        yield found
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
