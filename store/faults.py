"""What a check of a store looks at, and what it says of each thing that is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import StoreError
from store.chunks import REMEDY
from store.difference import first_difference
from store.extent import Extent
from store.files import json_bytes, plain, read_json
from store.schema import StoreSchema


@dataclass(frozen=True)
class Fault:
    """One line for the user, and how far the part's rows and documents are good all the same."""

    message: str
    good: Extent = field(default_factory=Extent)


@dataclass
class Tally:
    """What has been read so far; `on_rows` is told of rows as they are checked."""

    bytes_read: int = 0
    on_rows: Callable[[int], None] = lambda rows: None


@dataclass(frozen=True)
class PartView:
    """A part up to some commit: how far its arrays reach, and how many labels it has.

    first_row: number in the store of the part's first row; None if that cannot be known.
    """

    folder: Path
    schema: StoreSchema
    extent: Extent
    labels: int
    first_row: int | None = 0

    def rows(self, first: int, stop: int) -> str:
        """Names rows [first, stop) of the part as rows of the store."""
        if self.first_row is None:
            return f"{span('row', first, stop)} of the part"
        return span("row", self.first_row + first, self.first_row + stop)


def span(noun: str, first: int, stop: int) -> str:
    """`rows 8,192-16,383` for [8192, 16384), `row 5` for [5, 6)."""
    if stop <= first:
        return f"no {noun}s"
    return f"{noun} {first:,}" if stop == first + 1 else f"{noun}s {first:,}-{stop - 1:,}"


def reason(error: Exception) -> str:
    """An error's line without the advice to verify, which is being followed."""
    return str(error).removesuffix(f"; {REMEDY}")


def other_content(file: Path, wanted: dict[str, Any], tally: Tally) -> Iterator[str]:
    """What is wrong with a metadata file that must hold exactly this."""
    try:
        tally.bytes_read += file.stat().st_size
        if file.read_bytes() == json_bytes(wanted):
            return
        found = read_json(file)
    except OSError as error:
        yield f"{file}: cannot be read ({error.strerror})"
    except StoreError as error:
        yield str(error)
    else:
        yield f"{file}: {first_difference(found, plain(wanted)) or 'bytes have changed'}"
