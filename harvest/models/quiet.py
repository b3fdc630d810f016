"""Keeps what transformers and the hub's client say off the screen: an error of ours says it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """Lets both libraries print nothing below an error and no progress bars; then as before."""
    from huggingface_hub.utils import logging as hub
    from transformers.utils import logging

    levels = hub.get_verbosity(), logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    hub.set_verbosity_error()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        hub.set_verbosity(levels[0])
        logging.set_verbosity(levels[1])
        if bars:
            logging.enable_progress_bar()
