"""What a harvest would write and take, from assumptions alone: nothing is looked at.

For what is planned before there is a machine for it. `harvest plan` without assumptions measures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from harvest.forecast import Forecast
from harvest.room import store_bytes
from store.layout import default_chunk_rows, default_column_chunks
from store.schema import CodecName, Hookpoint, StoreSchema

DOCUMENT_ROWS = 500  # rows of a document
TEXT_BYTES = 4.5  # of a row
LOSSLESS = 2 / 3  # what that codec leaves of a real residual stream


@dataclass(frozen=True)
class Assumed:
    """bytes by codec, of the whole store; seconds: of a task; bytes_per_second: of all tasks that
    run at once, with codec none.
    """

    rows: int
    widths: dict[str, int]
    rows_per_second: float
    tasks: int
    at_once: int
    bytes: dict[CodecName, int]
    task_seconds: float
    seconds: float
    bytes_per_second: float


def assumed(
    rows: int, widths: dict[str, int], rate: float, tasks: int = 1, at_once: int | None = None
) -> Assumed:
    """A harvest of hookpoints of these widths, each task at `rate` rows per second."""
    at_once = min(tasks, at_once or tasks)
    hookpoints = tuple(Hookpoint(name, name, width) for name, width in widths.items())
    chunk_rows = default_chunk_rows(hookpoints)
    forecast = Forecast(
        documents=-(-rows // DOCUMENT_ROWS),
        rows=rows,
        tokens=(rows,) * len(widths),
        text_bytes=round(rows * TEXT_BYTES),
    )
    sizes: dict[CodecName, int] = {}
    for codec in get_args(CodecName):
        schema = StoreSchema(
            hookpoints,
            chunk_rows,
            {},
            {},
            codec=codec,
            parts=tasks,
            column_chunks=default_column_chunks(chunk_rows),
        )
        sizes[codec] = store_bytes(schema, forecast, LOSSLESS)
    task_seconds = rows / tasks / rate
    return Assumed(
        rows=rows,
        widths=widths,
        rows_per_second=rate,
        tasks=tasks,
        at_once=at_once,
        bytes=sizes,
        task_seconds=task_seconds,
        seconds=-(-tasks // at_once) * task_seconds,
        bytes_per_second=sizes["none"] / rows * rate * at_once,
    )
