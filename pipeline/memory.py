"""Running out of memory, said in a line as every error that a user can mend.

A CPU's memory mostly runs out without a word, when the system ends the process; what is caught here
is a device's, and a request that is larger than all there is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.errors import CrossdiffError

OF_DEVICE = "OutOfMemoryError"  # torch's, by name: the command line does not import torch
OF_CPU = "can't allocate memory"  # torch raises a bare RuntimeError that says this


def ran_out(error: RuntimeError) -> bool:
    """Whether this is torch's error for having no more memory."""
    return type(error).__name__ == OF_DEVICE or OF_CPU in str(error)


@contextmanager
def out_of_memory(error: type[CrossdiffError], what: str, remedy: str) -> Iterator[None]:
    """Raises `error`, "<what>: out of memory; <remedy>", where torch runs out of memory."""
    try:
        yield
    except RuntimeError as raised:
        if not ran_out(raised):
            raise
        raise error(f"{what}: out of memory; {remedy}") from None
