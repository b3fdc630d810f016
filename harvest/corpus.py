"""Reads the documents of a corpus, in order, one at a time, with their text exactly as stored.

.parquet, .jsonl, .json and datasets on the hub stream through Hugging Face `datasets`, so memory
stays at a few batches whatever the size; a .txt file is one document, line ends untouched.
"""

from __future__ import annotations

import glob
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from harvest.reason import first_line, read_errors
from pipeline.config import CorpusSpec
from pipeline.errors import CorpusError

LOADERS = {".parquet": "parquet", ".jsonl": "json", ".json": "json"}


@dataclass(frozen=True)
class Document:
    """One text, and the label of its domain (empty without a label column)."""

    text: str
    label: str


def check_corpus(spec: CorpusSpec) -> None:
    """Raises CorpusError if a local corpus is plainly not there. Touches no network."""
    path = Path(spec.path)
    supported = (*LOADERS, ".txt")
    if path.is_file() and path.suffix not in supported:
        raise CorpusError(
            f"corpus.path: {spec.path}: not a kind of file that is read here; "
            f"give a {', '.join(supported)} file"
        )
    if not path.exists() and (path.suffix in supported or path.is_absolute()):
        raise CorpusError(f"corpus.path: {spec.path}: no such file")


def read_documents(spec: CorpusSpec, start: int = 0) -> Iterator[Document]:
    """The documents from number `start` on, at most `spec.limit` counted from the first."""
    check_corpus(spec)
    if Path(spec.path).suffix == ".txt":
        return islice(_text_file(spec), start, None)
    stop = None if spec.limit is None else max(0, spec.limit - start)
    return islice(_dataset(spec, start), stop)


def count_documents(spec: CorpusSpec) -> int | None:
    """Number of documents where the file's metadata tells it, else None."""
    path = Path(spec.path)
    if path.suffix == ".parquet" and path.exists():
        import pyarrow.parquet

        try:
            count = pyarrow.parquet.read_metadata(path).num_rows
        except (OSError, ValueError) as error:
            raise CorpusError(f"corpus.path: {path}: not a parquet file ({error})") from None
    elif path.suffix == ".jsonl" and path.exists():
        with path.open("rb") as file:
            count = sum(1 for line in file if line.strip())
    elif path.suffix == ".txt":
        count = 1
    else:
        return None
    return count if spec.limit is None else min(count, spec.limit)


def _text_file(spec: CorpusSpec) -> Iterator[Document]:
    try:
        yield Document(Path(spec.path).read_bytes().decode("utf-8"), "")
    except UnicodeDecodeError as error:
        raise CorpusError(f"corpus.path: {spec.path}: not UTF-8 text ({error})") from None


def _dataset(spec: CorpusSpec, start: int) -> Iterator[Document]:
    dataset = _open_dataset(spec)
    label_names = _label_names(dataset, spec)
    records = iter(dataset.skip(start) if start else dataset)
    number = start
    while True:
        try:
            record = next(records)
        except StopIteration:
            return
        except read_errors() as error:
            raise CorpusError(
                f"corpus.path: {spec.path}: cannot be read behind document {number} "
                f"({first_line(error)})"
            ) from None
        yield _document(record, spec, number, label_names)
        number += 1


def _open_dataset(spec: CorpusSpec) -> Any:
    """The dataset as a stream with the wanted columns. Raises CorpusError."""
    from datasets import load_dataset

    # Its readers log what they raise; here that is said in one line.
    logging.getLogger("datasets.packaged_modules").setLevel(logging.CRITICAL)
    kind = LOADERS.get(Path(spec.path).suffix)
    try:
        if kind and Path(spec.path).is_file():
            dataset = load_dataset(
                kind, data_files=glob.escape(spec.path), split="train", streaming=True
            )
        else:
            dataset = load_dataset(
                spec.path, spec.name, split=spec.split, revision=spec.revision, streaming=True
            )
        columns = list(dataset.column_names or next(iter(dataset.take(1)), {}))
    except read_errors() as error:
        raise CorpusError(
            f"corpus.path: {spec.path}: cannot be read ({first_line(error)})"
        ) from None
    wanted = {"text_column": spec.text_column, "label_column": spec.label_column}
    for key, column in wanted.items():
        if column is not None and columns and column not in columns:
            raise CorpusError(
                f"corpus.{key}: no column {column!r} in {spec.path}; it has {', '.join(columns)}"
            )
    return dataset.select_columns([column for column in dict.fromkeys(wanted.values()) if column])


def _label_names(dataset: Any, spec: CorpusSpec) -> list[str] | None:
    """Names of a ClassLabel column's numbers."""
    if spec.label_column is None or dataset.features is None:
        return None
    return getattr(dataset.features[spec.label_column], "names", None)


def _document(
    record: dict[str, Any], spec: CorpusSpec, number: int, label_names: list[str] | None
) -> Document:
    text = record.get(spec.text_column)
    if not isinstance(text, str):
        raise CorpusError(
            f"corpus.text_column: document {number} of {spec.path} holds {text!r} in "
            f"{spec.text_column!r}, not text; remove it or name another column"
        )
    label = record.get(spec.label_column) if spec.label_column else None
    if label_names is not None and isinstance(label, int):
        label = label_names[label]
    return Document(text, "" if label is None else str(label))
