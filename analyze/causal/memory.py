"""Passes of the models that run out of memory, with what there is to lower."""

from __future__ import annotations

from contextlib import AbstractContextManager

from pipeline.errors import ModelError
from pipeline.memory import out_of_memory


def passes_memory(
    what: str, batch_tokens: int, batch_rows: int | None = None
) -> AbstractContextManager[None]:
    """Raises ModelError where passes of models run out of memory.

    what: they, for the error; batch_rows: where a dictionary encodes beside them.
    """
    remedy = f"lower analyze.batch_tokens (now {batch_tokens})"
    if batch_rows is not None:
        remedy += f", or analyze.batch_rows (now {batch_rows})"
    return out_of_memory(ModelError, what, remedy)
