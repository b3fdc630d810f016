"""Rows of a dataset that Hugging Face `datasets` finds: on the hub, or in a folder laid out for it.

It is streamed, so memory stays at a few batches whatever the size, and it continues from where its
own `state_dict` says.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harvest.corpus.files import SAVED_DATASET
from harvest.corpus.rows import Row
from pipeline.specs import SourceSpec


class DatasetRows:
    """The rows of a dataset, with the columns that are asked for if they are there.

    `row` of them were read before `position` was taken. Raises ValueError for a position of
    another dataset, and what `datasets` raises.
    """

    def __init__(
        self, source: SourceSpec, columns: Sequence[str], row: int, position: Any | None
    ) -> None:
        self.name, self.row = str(source.path), row
        self._dataset = _open_dataset(source, columns)
        if position is not None:
            if not _same_shape(position, self._dataset.state_dict()):
                raise ValueError("a position of another dataset")
            self._dataset.load_state_dict(position)
        self._rows = iter(self._dataset)

    def __next__(self) -> Row:
        row = next(self._rows)
        self.row += 1
        return row

    def position(self) -> Any:
        """The dataset's own state."""
        return self._dataset.state_dict()

    def label_names(self, column: str) -> list[str] | None:
        """Names of a ClassLabel column's numbers."""
        return getattr((self._dataset.features or {}).get(column), "names", None)


def _open_dataset(source: SourceSpec, columns: Sequence[str]) -> Any:
    from datasets import disable_progress_bars, load_dataset

    disable_progress_bars()
    # Its readers log what they raise; here that is said in one line.
    logging.getLogger("datasets.packaged_modules").setLevel(logging.CRITICAL)
    path = Path(str(source.path)).expanduser()
    if any((path / name).exists() for name in SAVED_DATASET):
        dataset = _saved_dataset(path, source.split)
    else:
        name = str(path) if path.is_dir() else source.path
        dataset = load_dataset(
            name, source.name, split=source.split, revision=source.revision, streaming=True
        )
    names = dataset.column_names or list(next(iter(dataset.take(1)), {}))
    # With a column missing all are read: the error message lists them.
    return dataset.select_columns(list(columns)) if set(columns) <= set(names) else dataset


def _saved_dataset(folder: Path, split: str) -> Any:
    from datasets import DatasetDict, load_from_disk

    dataset = load_from_disk(folder)
    if isinstance(dataset, DatasetDict):
        if split not in dataset:
            raise ValueError(f"no split {split!r}; it has {', '.join(dataset)}")
        dataset = dataset[split]
    return dataset.to_iterable_dataset()


def _same_shape(state: Any, other: Any) -> bool:
    """Whether two states are of one kind of dataset, however far each has come."""
    if state is None or other is None:
        return True
    if isinstance(other, dict):
        return (
            isinstance(state, dict)
            and state.keys() == other.keys()
            and all(_same_shape(state[key], other[key]) for key in other)
        )
    if isinstance(other, list):
        return isinstance(state, list) and all(map(_same_shape, state, other))
    if isinstance(other, str):
        return state == other
    return type(state) is type(other)
