"""Writes one part of a store, block by block; a block is committed whole or not at all.

A commit makes the chunk files durable, then a line of the commit log, then replaces the part's
attributes: that replacement is the commit. Last come the lengths of the arrays, so that another
zarr client never sees a row that is not committed. Opening a part again continues behind its last
commit, and the finished part is byte-for-byte what an undisturbed writer would have left: where
the log gets a line follows from the rows alone. A pause commits without one.

Each commit writes the unfinished chunk of every array and calls fsync four times per array (about
60 times for two hookpoints), so `commit_rows` should not be far below the rows of a chunk.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from pipeline.errors import StoreError
from store.arrays import open_arrays, part_arrays, refuse_missing_ends
from store.block import Block, first_non_finite
from store.chunks import to_numpy, to_tensor
from store.columns import block_columns, state_after
from store.commits import LOG, Commit, read_good_log, read_log
from store.documents import Documents
from store.files import make_folder, remove_temporaries
from store.holder import part_lock
from store.layout import activation_layout
from store.part import REMEDY, PartState, read_part, write_part
from store.root import begin_store
from store.schema import Hookpoint, StoreSchema, part_path
from store.statistics import RowStatistics


class NonFinite(StoreError):
    """A block holds NaN or infinity: at this hookpoint, first in this row of the block."""

    def __init__(self, message: str, hookpoint: str, row: int) -> None:
        super().__init__(message)
        self.hookpoint = hookpoint
        self.row = row


class PartWriter:
    """Creates or continues one part. One writer per part: a second is refused.

    It commits after every `commit_rows` rows or a few more, when it is told to pause, and when it
    is finished. Raises StoreError if the store at `path` was begun with another schema.
    """

    def __init__(
        self, path: Path, schema: StoreSchema, part: int = 0, commit_rows: int = 0
    ) -> None:
        self.path = path
        self.schema = schema
        self.folder = part_path(path, part)
        if part >= schema.parts:
            raise StoreError(f"{path}: has no part {part}: it was begun for {schema.parts}")
        self._commit_rows = commit_rows
        self._torn = False
        self._lock = part_lock(path, part)
        self._lock.acquire()
        try:
            self._committed = self._appended = self._open()
        except BaseException:
            self._lock.release()
            raise

    @property
    def cursor(self) -> int:
        """Documents of the corpus done with, as the harvest counts them: where it goes on."""
        return self._committed.cursor

    @property
    def rows(self) -> int:
        """Rows committed so far."""
        return self._committed.rows

    @property
    def rows_appended(self) -> int:
        """Rows given so far, committed or not."""
        return self._appended.rows

    @property
    def complete(self) -> bool:
        """Whether the whole corpus of this part has been written."""
        return self._committed.complete

    def document_hashes(self) -> np.ndarray:
        """Hash of each text committed so far, uint64 (documents,). Raises StoreError."""
        parts = [(self.folder / "documents", self._committed)]
        return Documents(parts, self.schema.sources).hashes

    def append(self, block: Block, cursor: int) -> None:
        """Takes a block, and commits if enough rows have come; `cursor` is where it ends.

        Raises NonFinite, or StoreError if a document's source is not one of the schema's. After an
        error nothing since the last commit is kept and the part must be opened again.
        """
        assert not self._torn, "an append failed; open the part again"
        self._refuse_non_finite(block, cursor)
        columns = self._columns(block)
        self._torn = True
        statistics = {h.name: self._append_activations(h, block) for h in self.schema.hookpoints}
        for name, values in columns.items():
            self._arrays[name].append(values)
        self._appended = state_after(block, cursor, self._appended, columns, statistics)
        if sum(self._appended.pending) >= self._commit_rows:
            self._commit_with_line()
        self._torn = False

    def pause(self) -> None:
        """Commits what has come so far; the finished part will not show where it was paused."""
        assert not self._torn, "an append failed; open the part again"
        if self._appended is not self._committed:
            self._torn = True
            self._commit(self._appended)
            self._torn = False

    def finish(self) -> None:
        """Commits what is left and marks the part complete."""
        assert not self._torn, "an append failed; open the part again"
        self._torn = True
        if self._appended.pending:
            self._commit_with_line()
        for array in self._arrays.values():
            array.write_tail()
        self._committed = self._appended = replace(self._committed, complete=True)
        write_part(self.folder, self.schema, self._committed)
        self._torn = False

    def close(self) -> None:
        """Lets another writer have the part; what is not committed is lost."""
        self._lock.release()

    def __enter__(self) -> PartWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self) -> PartState:
        """Brings the part to its last commit, which is returned."""
        begin_store(self.path, self.schema)
        make_folder(self.folder)
        remove_temporaries(self.folder)
        begun = (self.folder / "zarr.json").exists()
        if begun:
            state = read_part(self.folder, self.schema)
            refuse_missing_ends(self.folder, self.schema, state.extent)
            self._logged_labels = len(read_good_log(self.folder, state).labels)
        else:
            _refuse_lost_attributes(self.folder, self.schema)
            state = PartState.empty(self.schema)
            self._logged_labels = 0
        self._arrays = open_arrays(self.folder, self.schema, state)
        if not begun:  # last: a part that has attributes has everything else
            write_part(self.folder, self.schema, state)
        return state

    def _commit_with_line(self) -> None:
        state = self._appended
        commit = Commit.next(state, self._logged_labels)
        line = commit.line()
        log_bytes = state.log_bytes + len(line)
        self._commit(replace(state, commits=commit.number, log_bytes=log_bytes, pending=()), line)
        self._logged_labels = len(state.labels)

    def _commit(self, state: PartState, line: bytes = b"") -> None:
        log = self._arrays[LOG]
        for array in self._arrays.values():
            array.write_tail()
        log.append(np.frombuffer(line, np.uint8))
        log.write_tail()
        write_part(self.folder, self.schema, state)
        for array in self._arrays.values():
            array.write_shape()
        self._committed = self._appended = state

    def _append_activations(self, hookpoint: Hookpoint, block: Block) -> RowStatistics:
        """Appends a hookpoint's rows; their statistics, as they will be read again."""
        layout = activation_layout(hookpoint, self.schema.chunk_rows, self.schema.codec)
        stored = layout.to_stored(to_numpy(block.activations[hookpoint.name]))
        self._arrays[f"activations/{hookpoint.name}"].append_stored(stored)
        return RowStatistics.of(to_tensor(layout.from_stored(stored)))

    def _columns(self, block: Block) -> dict[str, np.ndarray]:
        try:
            return block_columns(block, self._appended, self.schema)
        except StoreError as error:
            raise StoreError(f"{self.folder}: {error}") from None

    def _refuse_non_finite(self, block: Block, cursor: int) -> None:
        found = first_non_finite(block)
        if found is not None:
            name, row = found
            model = next(h.model for h in self.schema.hookpoints if h.name == name)
            raise NonFinite(
                f"{self.folder}: {name}: NaN or infinity before document {cursor}, at character "
                f"{int(block.char_end[row])}; give models.{model}.dtype bfloat16 or float32",
                hookpoint=name,
                row=row,
            )


def _refuse_lost_attributes(folder: Path, schema: StoreSchema) -> None:
    """Raises StoreError if a part without attributes was once more than opened."""
    if read_log(folder).commits:
        raise StoreError(f"{folder / 'zarr.json'}: is gone, but the part has commits; {REMEDY}")
    for array in part_arrays(schema):
        if (folder / array.name / "c").exists():
            raise StoreError(
                f"{folder}: holds rows, but its attributes and its log are gone; restore one of "
                "them from a backup, or delete the folder and harvest it again"
            )
