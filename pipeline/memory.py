"""Running out of memory, said in a line as every error that a user can mend.

A CPU's memory mostly runs out without a word, when the system ends the process; what is caught here
is a device's, and a request that is larger than all there is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.errors import CrossdiffError

OF_DEVICE = "OutOfMemoryError"  # torch's, by name: the command line does not import torch
# What torch says in other errors: of a CPU, of pinned memory and contexts, of cuBLAS and the like.
SAID = ("can't allocate memory", "CUDA error: out of memory", "STATUS_ALLOC_FAILED")


def ran_out(error: Exception) -> bool:
    """Whether this is an error of torch, numpy or Python for having no more memory."""
    named = isinstance(error, MemoryError) or type(error).__name__ == OF_DEVICE
    return named or (isinstance(error, RuntimeError) and any(s in str(error) for s in SAID))


@contextmanager
def out_of_memory(error: type[CrossdiffError], what: str, remedy: str) -> Iterator[None]:
    """Raises `error`, "<what>: out of memory; <remedy>", where torch or numpy runs out of it."""
    try:
        yield
    except (RuntimeError, MemoryError) as raised:
        if not ran_out(raised):
            raise
        raise error(f"{what}: out of memory; {remedy}") from raised
