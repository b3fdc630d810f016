"""What a part holds as of a commit: the attributes of its group, whose replacement is the commit.

They carry a checksum, and a digest of the store's schema: a part of another store is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from pipeline.errors import StoreError
from store.extent import Extent
from store.files import group_metadata
from store.root import schema_digest
from store.schema import StoreSchema, Words
from store.seal import read_sealed, sealed, write_sealed
from store.statistics import BINS_PER_OCTAVE, LOWEST_BIN, RowStatistics

REMEDY = "run `store verify --repair`, or restore it from a backup"


Count = Annotated[int, Field(ge=0, lt=1 << 53)]
Excluded = dict[Words, Count]


class TokenCounts(BaseModel):
    """A model's text tokens: how many were read, and how many of them became rows."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    read: Count
    paired: Count

    def plus(self, read: int, paired: int) -> TokenCounts:
        """With some more of each."""
        return TokenCounts(read=self.read + read, paired=self.paired + paired)

    def within(self, other: TokenCounts) -> bool:
        """Whether neither is more than in `other`."""
        return self.read <= other.read and self.paired <= other.paired


class ForeignPart(StoreError):
    """The part is whole, and belongs to another store: nothing of it may be mended or cut."""


@dataclass(frozen=True)
class PartState:
    """Everything that a commit says about its part.

    cursor: documents of the corpus done with, as the harvest counts them; pending: the rows of
    each block behind the last line of the commit log, of which a paused writer leaves some;
    labels: in the order of their first appearance; excluded: how many rows or documents were left
    out, by reason, in the order of the alphabet; tokens: by model; statistics: by hookpoint.
    """

    commits: int
    rows: int
    documents: int
    text_bytes: int
    log_bytes: int
    cursor: int
    complete: bool
    pending: tuple[int, ...]
    labels: tuple[str, ...]
    excluded: dict[str, int]
    tokens: dict[str, TokenCounts]
    statistics: dict[str, RowStatistics]

    @classmethod
    def empty(cls, schema: StoreSchema) -> PartState:
        """A part that has been opened and holds nothing."""
        tokens = {model: TokenCounts(read=0, paired=0) for model in schema.models}
        statistics = {h.name: RowStatistics.empty(h.width) for h in schema.hookpoints}
        return cls(0, 0, 0, 0, 0, 0, False, (), (), {}, tokens, statistics)

    @property
    def extent(self) -> Extent:
        """How far the part's arrays reach."""
        return Extent(self.rows, self.documents, self.text_bytes, self.log_bytes)


def added(*counts: Mapping[str, int]) -> dict[str, int]:
    """Sums of counts by reason, in the order of the alphabet, whatever the order they came in."""
    reasons = sorted({reason for some in counts for reason in some})
    return {reason: sum(some.get(reason, 0) for some in counts) for reason in reasons}


def part_metadata(schema: StoreSchema, state: PartState) -> dict[str, Any]:
    """The part's zarr.json."""
    return group_metadata(sealed(_to_json(schema, state)))


def write_part(folder: Path, schema: StoreSchema, state: PartState) -> None:
    """Commits `state`: durably, and all of it or nothing."""
    write_sealed(folder, _to_json(schema, state))


def read_part(folder: Path, schema: StoreSchema) -> PartState:
    """The last commit. Raises StoreError naming the file if it is missing, damaged or foreign."""
    file = folder / "zarr.json"
    attributes = read_sealed(folder, REMEDY)
    try:
        found = _Attributes.model_validate(attributes)
        if found.digest == schema_digest(schema):
            return _state(found, schema)
    except (ValidationError, ValueError) as error:
        raise StoreError(f"{file}: damaged part attributes ({why(error)}); {REMEDY}") from None
    raise ForeignPart(
        f"{file}: this part was written for a store with another schema; put it back to its own "
        "store, or delete the part and harvest it again"
    )


def why(error: Exception) -> str:
    """An error in one line; of all that pydantic has found, the first."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(str(step) for step in first['loc'])}: {first['msg']}"
    return str(error)


def _to_json(schema: StoreSchema, state: PartState) -> dict[str, Any]:
    return {
        "schema": schema_digest(schema),
        "commits": state.commits,
        "rows": state.rows,
        "documents": state.documents,
        "text_bytes": state.text_bytes,
        "log_bytes": state.log_bytes,
        "cursor": state.cursor,
        "complete": state.complete,
        "pending": list(state.pending),
        "labels": list(state.labels),
        "excluded": state.excluded,
        "tokens": {model: counts.model_dump() for model, counts in state.tokens.items()},
        "statistics": {name: found.to_json() for name, found in state.statistics.items()},
    }


def _state(found: _Attributes, schema: StoreSchema) -> PartState:
    """Raises ValueError if the values contradict each other or the schema."""
    if set(found.tokens) != set(schema.models):
        raise ValueError(f"tokens of {', '.join(found.tokens)}, not {', '.join(schema.models)}")
    names = [hookpoint.name for hookpoint in schema.hookpoints]
    if set(found.statistics) != set(names):
        raise ValueError(f"statistics of {', '.join(found.statistics)}, not {', '.join(names)}")
    if len(set(found.labels)) != len(found.labels):
        raise ValueError("a label is listed twice")
    if sum(found.pending) > found.rows or (found.complete and found.pending):
        raise ValueError(f"blocks of {sum(found.pending)} rows wait for a line of the commit log")
    statistics = {}
    for hookpoint in schema.hookpoints:
        values = found.statistics[hookpoint.name]
        widths = {len(values.mean), len(values.squared_deviations)}
        if widths != {hookpoint.width}:
            raise ValueError(f"statistics of {hookpoint.name} have widths {widths}")
        if {values.count, sum(values.norm_bins.values())} != {found.rows}:
            raise ValueError(
                f"statistics of {hookpoint.name} count {values.count} rows of {found.rows}"
            )
        statistics[hookpoint.name] = RowStatistics.from_json(values.model_dump())
    return PartState(
        commits=found.commits,
        rows=found.rows,
        documents=found.documents,
        text_bytes=found.text_bytes,
        log_bytes=found.log_bytes,
        cursor=found.cursor,
        complete=found.complete,
        pending=tuple(found.pending),
        labels=tuple(found.labels),
        excluded=found.excluded,
        tokens=found.tokens,
        statistics=statistics,
    )


def _bin(number: str) -> str:
    """A bin of norms that bfloat16 rows can have, as `str` writes an int."""
    if not (number == str(int(number)) and LOWEST_BIN <= int(number) < 256 * BINS_PER_OCTAVE):
        raise ValueError(f"{number!r} is no bin of norms")
    return number


# Far beyond what bfloat16 gives, so that sums of a few cannot overflow.
Value = Annotated[float, Field(ge=-1e100, le=1e100)]
Square = Annotated[float, Field(ge=0, le=1e100)]


class _Statistics(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    count: Count
    mean: list[Value]
    squared_deviations: list[Square]
    norm_bins: dict[Annotated[str, AfterValidator(_bin)], Count]


class _Attributes(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    digest: str = Field(alias="schema")
    commits: Count
    rows: Count
    documents: Count
    text_bytes: Count
    log_bytes: Count
    cursor: Count
    complete: bool
    pending: list[Count]
    labels: list[str]
    excluded: Excluded
    tokens: dict[str, TokenCounts]
    statistics: dict[str, _Statistics]
