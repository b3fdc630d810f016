"""Writes one part of a store, block by block; a block is committed whole or not at all.

A commit is the atomic replacement of the part's attributes, after all chunk files of the block
are durable. Opening a part again continues behind its last commit, and the finished part is
byte-for-byte what an undisturbed writer would have left.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import filelock
import numpy as np
import torch

from pipeline.errors import StoreError
from store.appender import ArrayAppender
from store.bfloat16 import NATIVE as BFLOAT16
from store.block import Block, document_hash, encode_text
from store.chunks import to_numpy
from store.files import make_folder, remove_temporaries, write_group
from store.part import read_part
from store.root import begin_store
from store.schema import DOCUMENT_CHUNK, TEXT_CHUNK_BYTES, StoreSchema, part_path
from store.statistics import RowStatistics, merge


class PartWriter:
    """Creates or continues one part. One writer per part: a second is refused.

    Raises StoreError if the store at `path` was begun with another schema.
    """

    def __init__(self, path: Path, schema: StoreSchema, part: int = 0) -> None:
        self.path = path
        self.schema = schema
        self.folder = part_path(path, part)
        make_folder(path.parent)
        # The lock belongs to the process: the thread that closes need not be the one that opened.
        self._lock = filelock.FileLock(
            path.with_name(f".{path.name}.part{part:05d}.lock"), thread_local=False
        )
        self._torn = False
        try:
            self._lock.acquire(timeout=0)
        except filelock.Timeout:
            raise StoreError(
                f"{self.folder}: another harvest is writing this part; wait for it"
            ) from None
        try:
            self._open()
        except BaseException:
            self._lock.release()
            raise

    @property
    def cursor(self) -> int:
        """Documents of the corpus done with, as the harvest counts them: where it goes on."""
        return int(self._attributes["cursor"])

    @property
    def rows(self) -> int:
        """Rows committed so far."""
        return int(self._attributes["rows"])

    @property
    def complete(self) -> bool:
        """Whether the whole corpus of this part has been written."""
        return bool(self._attributes["complete"])

    def append(self, block: Block, cursor: int) -> None:
        """Writes `block` and commits it durably; `cursor` is where a later run goes on.

        After an error nothing of the block is committed and the part must be opened again.
        """
        assert not self._torn, "an append failed; open the part again"
        self._refuse_infinite(block, cursor)
        self._torn = True
        first_document = int(self._attributes["documents"])
        for hookpoint in self.schema.hookpoints:
            rows = to_numpy(block.activations[hookpoint.name])
            self._arrays[f"activations/{hookpoint.name}"].append(rows)
        columns = {
            "document": block.document.astype(np.int64) + first_document,
            "char_start": block.char_start,
            "char_end": block.char_end,
            **{f"token_{model}": ids for model, ids in block.tokens.items()},
        }
        for name, values in columns.items():
            self._arrays[f"rows/{name}"].append(self._fitting_int32(name, values))
        self._append_documents(block)
        for array in self._arrays.values():
            array.flush()
        self._commit(self._attributes_after(block, cursor))
        self._torn = False

    def finish(self) -> None:
        """Marks the part complete."""
        assert not self._torn, "an append failed; open the part again"
        for array in self._arrays.values():
            array.flush()
        self._commit({**self._attributes, "complete": True})

    def close(self) -> None:
        """Lets another writer have the part."""
        self._lock.release()

    def __enter__(self) -> PartWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _open(self) -> None:
        begin_store(self.path, self.schema)
        remove_temporaries(self.folder)
        if (self.folder / "zarr.json").exists():
            self._attributes = read_part(self.folder, self.schema)
        else:
            self._attributes = self._first_attributes()
        for group in ("activations", "rows", "documents"):
            write_group(self.folder / group, {})
        self._arrays = self._open_arrays()

    def _first_attributes(self) -> dict[str, Any]:
        models = self.schema.models
        return {
            "rows": 0,
            "documents": 0,
            "text_bytes": 0,
            "cursor": 0,
            "complete": False,
            "labels": [],
            "tokens": {model: {"read": 0, "paired": 0} for model in models},
            "statistics": {
                hookpoint.name: RowStatistics.empty(hookpoint.width).to_json()
                for hookpoint in self.schema.hookpoints
            },
        }

    def _open_arrays(self) -> dict[str, ArrayAppender]:
        rows, documents = self.rows, int(self._attributes["documents"])
        chunk_rows = self.schema.chunk_rows

        def column(
            name: str, kind: Any, length: int, chunk: int, row_shape: tuple[int, ...] = ()
        ) -> tuple[str, ArrayAppender]:
            array = ArrayAppender(self.folder / name, np.dtype(kind), row_shape, chunk, length)
            return name, array

        return dict(
            [
                *(
                    column(f"activations/{h.name}", BFLOAT16, rows, chunk_rows, (h.width,))
                    for h in self.schema.hookpoints
                ),
                *(
                    column(f"rows/{name}", np.int32, rows, chunk_rows)
                    for name in self.schema.row_columns
                ),
                column(
                    "documents/text", np.uint8, self._attributes["text_bytes"], TEXT_CHUNK_BYTES
                ),
                column("documents/text_end", np.int64, documents, DOCUMENT_CHUNK),
                column("documents/label", np.int32, documents, DOCUMENT_CHUNK),
                column("documents/hash", np.uint64, documents, DOCUMENT_CHUNK),
            ]
        )

    def _refuse_infinite(self, block: Block, cursor: int) -> None:
        for hookpoint in self.schema.hookpoints:
            if not torch.isfinite(block.activations[hookpoint.name]).all():
                raise StoreError(
                    f"{self.folder}: {hookpoint.name}: NaN or infinity before document {cursor}; "
                    f"give models.{hookpoint.model}.dtype bfloat16 or float32"
                )

    def _fitting_int32(self, name: str, values: np.ndarray) -> np.ndarray:
        if len(values) and int(values.max()) > np.iinfo(np.int32).max:
            raise StoreError(
                f"{self.folder}: {name} {values.max()} does not fit 32 bits; harvest more parts"
            )
        return values.astype(np.int32)

    def _append_documents(self, block: Block) -> None:
        encoded = [encode_text(text) for text in block.texts]
        sizes = np.array([len(text) for text in encoded], np.int64)
        labels = self._labels_after(block)
        numbers = {label: number for number, label in enumerate(labels)}
        self._arrays["documents/text_end"].append(self._attributes["text_bytes"] + sizes.cumsum())
        self._arrays["documents/text"].append(np.frombuffer(b"".join(encoded), np.uint8))
        self._arrays["documents/label"].append(
            np.array([numbers[label] for label in block.labels], np.int32)
        )
        self._arrays["documents/hash"].append(
            np.array([document_hash(text) for text in encoded], np.uint64)
        )

    def _labels_after(self, block: Block) -> list[str]:
        """Labels in the order of their first appearance."""
        return list(dict.fromkeys([*self._attributes["labels"], *block.labels]))

    def _attributes_after(self, block: Block, cursor: int) -> dict[str, Any]:
        before = self._attributes
        return {
            **before,
            "rows": before["rows"] + len(block.document),
            "documents": before["documents"] + len(block.texts),
            "text_bytes": self._arrays["documents/text"].rows,
            "cursor": cursor,
            "labels": self._labels_after(block),
            "tokens": {
                model: {
                    "read": counts["read"] + block.tokens_read[model],
                    "paired": counts["paired"] + block.tokens_paired[model],
                }
                for model, counts in before["tokens"].items()
            },
            "statistics": {
                hookpoint.name: merge(
                    [
                        RowStatistics.from_json(before["statistics"][hookpoint.name]),
                        RowStatistics.of(block.activations[hookpoint.name]),
                    ],
                    width=hookpoint.width,
                ).to_json()
                for hookpoint in self.schema.hookpoints
            },
        }

    def _commit(self, attributes: dict[str, Any]) -> None:
        write_group(self.folder, attributes)
        self._attributes = attributes
