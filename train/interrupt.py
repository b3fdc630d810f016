"""Ctrl-C and SIGTERM wait for the end of a step, when a checkpoint can be written.

A second one does not wait.

A batch system sends SIGTERM some seconds before it kills; Ctrl-C is KeyboardInterrupt, SIGTERM is
SystemExit with code 143, which the command line turns into one line (pipeline/command.py).
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:  # importing torch would make --help slow
    from train.ranks import Ranks

STOPPED = (KeyboardInterrupt, SystemExit)


def stop_now(number: int, frame: FrameType | None = None) -> NoReturn:
    """A signal handler. Raises KeyboardInterrupt, or SystemExit with code 128 + `number`."""
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)


class PostponedStop:
    """Remembers that a signal came, until the work asks where it can stop."""

    def __init__(self) -> None:
        self._number = 0
        self._shared = 0
        self._waiting = False
        self.hurried = False  # a second signal: do not even write a checkpoint
        self.together = False  # with other processes: none leaves before the others know

    def share(self, ranks: Ranks) -> None:
        """What has come to any rank has come to all; what comes meanwhile waits for the next time.

        So the two are kept apart: else the answer would wipe out a signal that came during it.
        """
        self._shared = ranks.largest(self._number)

    def raise_if_shared(self) -> None:
        """Raises KeyboardInterrupt or SystemExit, on all ranks alike, if there was one to share."""
        if self._shared:
            stop_now(self._shared)

    def raise_if_set(self) -> None:
        """Raises KeyboardInterrupt or SystemExit if a signal has come."""
        if self._number:
            stop_now(self._number)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Nothing is half done in this context, so nothing is postponed: it may wait for long."""
        if self.together:
            yield
            return
        self._waiting = True
        try:
            self.raise_if_set()
            yield
        finally:
            self._waiting = False

    def note(self, number: int, frame: FrameType | None) -> None:
        """The signal handler."""
        # torchrun hands a signal on that its workers may have got already: that is no second one.
        self.hurried = self._number != 0 and not self.together
        self._number = number
        if self.hurried or self._waiting:
            stop_now(number)


@contextmanager
def postponed_stop() -> Iterator[PostponedStop]:
    """What came meanwhile is raised at the end at the latest.

    Only signals that would end this thread: what is ignored, or handled by others, stays so.
    """
    stop = PostponedStop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    usual = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    ours = (signal.default_int_handler, signal.SIG_DFL, stop_now)
    taken = {number: handler for number, handler in usual.items() if handler in ours}
    for number in taken:
        signal.signal(number, stop.note)
    try:
        yield stop
    finally:
        for number, handler in taken.items():
            signal.signal(number, handler)
    stop.raise_if_set()


@contextmanager
def sigterm_raises() -> Iterator[None]:
    """SIGTERM ends the work as Ctrl-C does, by an exception, where it would kill without a word."""
    here = threading.current_thread() is threading.main_thread()
    if not here or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, stop_now)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
