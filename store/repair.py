"""Cuts each damaged part of a store back to its last good commit; `harvest run` then continues it.

What is damaged beyond the rows costs no rows: attributes are built again from the commit log, the
log from the attributes, and the metadata of groups and arrays from the schema. Killed at any
instant it leaves a part that can be repaired again, or continued. Cost: four or five reads of a
damaged part, one of the others.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.errors import StoreError
from store.arrays import missing_ends, open_arrays
from store.check_metadata import PartMetadata, is_begun, read_metadata
from store.commits import Commit, CommitLog, rewrite_log
from store.extent import Extent
from store.faults import PartView, Tally, other_content
from store.files import group_metadata, remove_temporaries, write_json
from store.holder import part_lock
from store.part import ForeignPart, PartState, read_part, write_part
from store.recompute import recompute
from store.root import read_root, root_metadata
from store.schema import StoreSchema, part_path
from store.verify import data_faults


@dataclass(frozen=True)
class RepairedPart:
    """What was cut off a part; rows_before is None where nothing could tell."""

    folder: str
    rows_before: int | None
    rows_after: int

    def __str__(self) -> str:
        if self.rows_before == self.rows_after:
            return f"{self.folder}: no row lost of {self.rows_after:,}"
        before = "an unknown number of" if self.rows_before is None else f"{self.rows_before:,}"
        return f"{self.folder}: cut back from {before} to {self.rows_after:,} rows"


@dataclass(frozen=True)
class Target:
    """A commit that a part may be cut back to: the `commits`-th line of `log`.

    state: what the attributes say, where they are good and say just this, or this and what a
    paused writer added to it.
    """

    log: CommitLog
    commits: int
    extent: Extent
    state: PartState | None = None


def repair(path: Path) -> list[RepairedPart]:
    """Mends what can be mended, and says what it did to which parts.

    Raises StoreError before anything is written if the root cannot be read, if a part belongs to
    another store, or if a damaged part is being written or has neither attributes nor log left.
    """
    schema = read_root(path)
    folders = [(number, part_path(path, number)) for number in range(schema.parts)]
    begun = [number for number, folder in folders if is_begun(folder, schema)]
    for number in begun:
        _refuse_foreign(part_path(path, number), schema)
    damaged = [number for number in begun if _is_damaged(path, schema, number)]
    for number in damaged:
        with part_lock(path, number):
            pass
    for group, wanted in ((path, root_metadata(schema)), (path / "parts", group_metadata({}))):
        if group.exists() and any(other_content(group / "zarr.json", wanted, Tally())):
            write_json(group / "zarr.json", wanted)
    return [_repair_part(path, schema, number) for number in damaged]


def _refuse_foreign(folder: Path, schema: StoreSchema) -> None:
    try:
        read_part(folder, schema)
    except ForeignPart:
        raise
    except StoreError:
        pass  # what can be mended is mended below


def _is_damaged(path: Path, schema: StoreSchema, number: int) -> bool:
    part = read_metadata(part_path(path, number), schema, Tally())
    target = _last_good(part)
    return bool(part.faults) or target.state is None


def _repair_part(path: Path, schema: StoreSchema, number: int) -> RepairedPart:
    with part_lock(path, number):
        # Looked at again: until the lock was there, a writer may have been at work.
        part = read_metadata(part_path(path, number), schema, Tally())
        target = _last_good(part)
        _restore(part, target)
        return RepairedPart(str(part.folder), part.rows, target.extent.rows)


def _last_good(part: PartMetadata) -> Target:
    """The last commit up to which everything is good. Raises StoreError if none is known."""
    targets = _targets(part)
    while True:
        target = targets.pop()
        if any(missing_ends(part.folder, part.schema, target.extent)):
            continue
        known = target.state or target.log.first(target.commits)
        view = PartView(part.folder, part.schema, target.extent, len(known.labels))
        limit = Extent()
        for fault in data_faults(view, Tally()):
            limit = limit.meet(fault.good)
        if target.extent.within(limit):
            return target
        # The empty part is always left: nothing is wrong before its end.
        targets = [target for target in targets if target.extent.within(limit)]


def _targets(part: PartMetadata) -> list[Target]:
    """Every commit that is known, the last one last."""
    log, state = part.log, part.state
    if state is None and not log.commits:
        raise StoreError(
            f"{part.folder}: cannot be repaired: neither its attributes nor its commit log can be "
            "read; restore one of them from a backup, or delete the folder and harvest it again"
        )
    last = None
    if state is not None:
        last, log = _attributes_target(log, state)
    targets = [Target(log, commits, extent) for commits, extent in enumerate(log.extents())]
    return targets if last is None else [*targets, last]


def _attributes_target(log: CommitLog, state: PartState) -> tuple[Target, CommitLog]:
    """What the attributes say, with a log that leads there, and the good lines before."""
    if log.leads_to(state):
        before = log if state.pending else log.first(state.commits - 1)
        return Target(log, state.commits, state.extent, state), before
    before = _not_contradicting(log, state)
    bridge = _bridge(before, state)
    bridged = CommitLog((*before.commits, bridge), "")
    state = replace(state, commits=bridge.number, log_bytes=len(bridged.content), pending=())
    return Target(bridged, state.commits, state.extent, state), before


def _not_contradicting(log: CommitLog, state: PartState) -> CommitLog:
    """The good lines of a damaged log that can have led to `state`."""
    commits = len(log.commits)
    while commits:
        known = log.first(commits)
        fits = known.last.rows <= state.rows and known.last.within(_bridge(known, state))
        if fits and known.labels == state.labels[: len(known.labels)]:
            return known
        commits -= 1
    return log.first(0)


def _bridge(log: CommitLog, state: PartState) -> Commit:
    """A line that leads from the end of `log` to `state`, as if it had been one block."""
    block = state.rows - log.last.rows
    return Commit.next(replace(state, commits=log.last.number, pending=(block,)), len(log.labels))


def _restore(part: PartMetadata, target: Target) -> None:
    """Makes the part what its writer left with that commit."""
    folder, schema = part.folder, part.schema
    log = target.log.first(target.commits)
    state = target.state or recompute(folder, schema, log)
    remove_temporaries(folder)
    write_part(folder, schema, state)  # first: what is then too much is what a kill leaves
    rewrite_log(folder, log)
    for array in open_arrays(folder, schema, state).values():
        array.write_tail()
