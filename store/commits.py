"""The log of a part's commits: one line of JSON each, durable before the commit it announces.

It lies in an array of bytes, like the texts (zarr would warn of a file that it does not know). A
line says what the part's attributes said after that commit, but for the statistics, of which it
keeps what is needed to compute them again from the rows, bit by bit: how many rows each block had.
From the log a damaged part is cut back to a commit before the damage (store.repair). About 300
bytes a commit. Lines behind the last commit are what a killed writer left. A writer that is paused
adds no line, so that the log knows only of rows: the attributes are then ahead of it.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from pipeline.errors import StoreError
from store.chunks import check_chunk, map_chunk, write_chunk
from store.extent import Extent
from store.layout import Layout
from store.part import REMEDY, Count, Excluded, PartState, TokenCounts, why
from store.schema import LOG_CHUNK_BYTES, chunk_file
from store.seal import canonical, sealed, unsealed

LOG = "commits"
NONE = TokenCounts(read=0, paired=0)
LOG_LAYOUT = Layout(LOG_CHUNK_BYTES, (), np.dtype(np.uint8))

_FROM_LIST = Field(strict=False)  # JSON has no tuples


class Commit(BaseModel):
    """A line of the log.

    tokens and excluded: so far, by model and by reason; labels: those that came new; blocks: the
    rows of each block since the line before.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    number: Count
    rows: Count
    documents: Count
    text_bytes: Count
    cursor: Count
    tokens: dict[str, TokenCounts]
    excluded: Excluded
    labels: Annotated[tuple[str, ...], _FROM_LIST]
    blocks: Annotated[tuple[Annotated[Count, Field(strict=True)], ...], _FROM_LIST]

    @classmethod
    def next(cls, state: PartState, labels: int) -> Commit:
        """The line that `state` has still to get; those before it have its first `labels`."""
        return cls(
            number=state.commits + 1,
            rows=state.rows,
            documents=state.documents,
            text_bytes=state.text_bytes,
            cursor=state.cursor,
            tokens=state.tokens,
            excluded=state.excluded,
            labels=state.labels[labels:],
            blocks=state.pending,
        )

    @property
    def extent(self) -> Extent:
        """How far the part's arrays reach; of the log a line does not say it."""
        return Extent(self.rows, self.documents, self.text_bytes, 0)

    def within(self, other: Commit) -> bool:
        """Whether it counts nothing further than `other` does."""
        return (
            self.extent.within(other.extent)
            and self.cursor <= other.cursor
            and all(n <= other.excluded.get(reason, 0) for reason, n in self.excluded.items())
            and all(n.within(other.tokens.get(model, NONE)) for model, n in self.tokens.items())
        )

    def line(self) -> bytes:
        """The line, checksum and newline included."""
        return canonical(sealed(self.model_dump())) + b"\n"


@dataclass(frozen=True)
class CommitLog:
    """The good lines at the start of a log, and what is wrong behind them (empty: nothing)."""

    commits: tuple[Commit, ...]
    damage: str

    @property
    def content(self) -> bytes:
        """The bytes of the good lines."""
        return b"".join(commit.line() for commit in self.commits)

    @property
    def labels(self) -> tuple[str, ...]:
        """Every label, in the order of first appearance."""
        return tuple(label for commit in self.commits for label in commit.labels)

    @property
    def last(self) -> Commit:
        """The last good line; one that says that there is nothing, if there is none."""
        return self.commits[-1] if self.commits else NOTHING

    def first(self, commits: int) -> CommitLog:
        """Its first lines, which must be good."""
        return CommitLog(self.commits[:commits], "")

    def extents(self) -> Iterator[Extent]:
        """How far the part's arrays reach before the first line, and after each."""
        log_bytes = 0
        yield Extent(0, 0, 0, 0)
        for commit in self.commits:
            log_bytes += len(commit.line())
            yield replace(commit.extent, log_bytes=log_bytes)

    def leads_to(self, state: PartState) -> bool:
        """Whether the attributes say what the last line says, and what their pending blocks add."""
        last, known = self.last, len(self.labels)
        counted = (last.number, len(self.content), last.rows + sum(state.pending))
        if counted != (state.commits, state.log_bytes, state.rows):
            return False
        following = Commit.next(state, known)
        nothing_new = following.within(last) and not following.labels
        return (
            self.labels == state.labels[:known]
            and last.within(following)
            and (nothing_new or bool(state.pending))
        )


NOTHING = Commit(
    number=0,
    rows=0,
    documents=0,
    text_bytes=0,
    cursor=0,
    tokens={},
    excluded={},
    labels=(),
    blocks=(),
)


def read_log(part: Path, log_bytes: int | None = None) -> CommitLog:
    """A part's log as far as it is good; its first bytes, or all that a killed writer left.

    Each line has a checksum, so those of its chunks are not looked at. Raises nothing.
    """
    pieces: list[bytes] = []
    damage = ""
    try:
        pieces.extend(_chunks(part / LOG))
    except StoreError as error:
        damage = str(error)
    content = b"".join(pieces)[:log_bytes]
    lines = content.rstrip(b"\0").splitlines(keepends=True)
    if log_bytes is not None and len(content) < log_bytes:
        damage = damage or f"has {len(content)} bytes, expected {log_bytes}"
    commits: list[Commit] = []
    for number, line in enumerate(lines, 1):
        try:
            commits.append(_following(commits[-1] if commits else NOTHING, _parse(line)))
        except (ValueError, RecursionError) as error:
            damage = f"line {number} of {len(lines)} is damaged: {why(error)}"
            return CommitLog(tuple(commits), damage)
    return CommitLog(tuple(commits), damage)


def read_good_log(part: Path, state: PartState) -> CommitLog:
    """The log that leads to `state`. Raises StoreError if it does not."""
    log = read_log(part, state.log_bytes)
    if log.damage or not log.leads_to(state):
        reason = log.damage or "does not lead to what the part's attributes say"
        raise StoreError(f"{part / LOG}: commit log {reason}; {REMEDY}")
    return log


def rewrite_log(part: Path, log: CommitLog) -> None:
    """Makes the chunks hold the lines of `log`; chunks behind them stay. Needs no good chunk."""
    content = log.content
    for chunk, start in enumerate(range(0, len(content), LOG_CHUNK_BYTES)):
        values = np.zeros(LOG_CHUNK_BYTES, np.uint8)
        piece = np.frombuffer(content[start : start + LOG_CHUNK_BYTES], np.uint8)
        values[: len(piece)] = piece
        file = chunk_file(part / LOG, chunk, 1)
        if not _holds(file, values):
            write_chunk(file, values, LOG_LAYOUT)


def _chunks(array: Path) -> Iterator[bytes]:
    """The log's chunks in order, up to the first that is not there. Raises StoreError."""
    for chunk in itertools.count():
        file = chunk_file(array, chunk, 1)
        if not os.path.lexists(file):
            return
        yield map_chunk(file, LOG_LAYOUT).tobytes()


def _holds(file: Path, values: np.ndarray) -> bool:
    try:
        return bool(np.array_equal(check_chunk(file, LOG_LAYOUT), values))
    except StoreError:
        return False


def _parse(line: bytes) -> Commit:
    """Raises ValueError unless the line is, byte by byte, one that a commit writes."""
    commit = Commit.model_validate(unsealed(json.loads(line)))
    if commit.line() != line:
        raise ValueError("its checksum does not fit")
    return commit


def _following(before: Commit, after: Commit) -> Commit:
    """`after`, which must follow `before`. Raises ValueError."""
    if after.number != before.number + 1:
        raise ValueError(f"commit {after.number} follows commit {before.number}")
    if not before.within(after):
        raise ValueError("it holds less than the line before")
    if before.rows + sum(after.blocks) != after.rows:
        raise ValueError(f"its blocks do not lead from {before.rows} to {after.rows} rows")
    return after
