"""Of an error that all processes of a run have alike, rank 0 alone speaks.

torchrun's processes share a key-value store of its own; there each says why it ends. It is there
before training connects and after it has left, so errors of the configuration count too.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING

from pipeline.errors import CrossdiffError

if TYPE_CHECKING:  # importing torch would make --help slow
    from torch.distributed import TCPStore

PATIENCE = timedelta(seconds=5)  # how much later rank 0 may come to the same error


@contextmanager
def one_voice() -> Iterator[None]:
    """Ends a rank other than 0 without a word, with code 1, if rank 0 ends for the same reason.

    What only one rank has is raised as it is.
    """
    try:
        yield
    except (CrossdiffError, KeyboardInterrupt, SystemExit) as error:
        if _said_by_rank_0(error):
            raise SystemExit(1) from None
        raise


def _said_by_rank_0(error: BaseException) -> bool:
    """Whether this is another rank, and rank 0 says the same; rank 0 tells the others."""
    rank = int(os.environ.get("RANK", 0))
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return False
    why = f"{type(error).__name__}: {error}"
    with suppress(RuntimeError):  # no such store, or nothing in it: then everyone speaks
        store = _torchruns_store()
        if store is None:
            return False
        key = f"crossdiff/why/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}"
        if rank == 0:
            # torchrun ends this process as soon as another has left; first it must have spoken.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            store.set(key, why)
            return False
        store.wait([key], PATIENCE)
        return store.get(key).decode() == why
    return False


def _torchruns_store() -> TCPStore | None:
    """The store of the process that started this one; None if it was not torchrun."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    from torch.distributed import TCPStore

    place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return TCPStore(*place, is_master=False, timeout=PATIENCE)
