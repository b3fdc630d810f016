"""Reads the documents of a corpus, in order, one at a time, with their text exactly as stored.

Several sources are mixed by weight. Where a reader has come to is a small JSON value that leads
another one there at once; without it, the documents before are read again and passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict, NonNegativeInt, ValidationError

from harvest.corpus.document import Document
from harvest.corpus.files import local_files
from harvest.corpus.mixture import Mixture
from harvest.corpus.rows import count_rows
from harvest.corpus.source import Source, SourcePosition, SourceReader
from harvest.reason import first_line, read_errors
from pipeline.errors import CorpusError
from pipeline.specs import CorpusSpec


class MixedPosition(SourcePosition):
    """The position of a source in a mixture: `counted` since another one last ended, if `live`."""

    counted: NonNegativeInt
    live: bool


class CorpusPosition(BaseModel):
    """The position of every source, by name."""

    model_config = ConfigDict(extra="forbid", strict=True)
    sources: dict[str, MixedPosition]

    def fits(self, sources: list[Source], cursor: int) -> bool:
        """Whether it is of these sources, after `cursor` documents."""
        documents = sum(position.documents for position in self.sources.values())
        return self.sources.keys() == {source.name for source in sources} and documents == cursor


class CorpusReader:
    """The documents of a corpus behind the first `cursor`, mixed; `cursor` counts on.

    state: what an earlier reader's `state` gave at this cursor; one that does not fit is ignored.
    check: called ahead of every document; what it raises ends the reading.
    Raises CorpusError, from reading too.
    """

    def __init__(
        self,
        corpus: CorpusSpec,
        cursor: int = 0,
        state: Any | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        check_corpus(corpus)
        self.cursor = cursor
        self._check = check
        self._sources = corpus_sources(corpus)
        if not self._seek(state):
            self._skip()

    def __iter__(self) -> Iterator[Document]:
        return self

    def __next__(self) -> Document:
        while (source := self._mixture.next()) is not None:
            self._check()
            document = self._readers[source].read()
            if document is not None:
                self._mixture.add(source)
                self.cursor += 1
                return document
            self._mixture.drop(source)
        raise StopIteration

    def state(self) -> dict[str, Any]:
        """The position, in JSON. Some microseconds per source."""
        named = {
            source.name: MixedPosition(
                **dict(reader.position), counted=self._mixture.counts[i], live=self._mixture.live[i]
            )
            for i, (source, reader) in enumerate(zip(self._sources, self._readers, strict=True))
        }
        return CorpusPosition(sources=named).model_dump()

    def _seek(self, state: Any | None) -> bool:
        """Opens the sources where `state` says; False if it does not fit."""
        try:
            position = CorpusPosition.model_validate(state)
        except ValidationError:
            return False
        if not position.fits(self._sources, self.cursor):
            return False
        positions = [position.sources[source.name] for source in self._sources]
        try:
            self._readers = [
                SourceReader(source, place)
                for source, place in zip(self._sources, positions, strict=True)
            ]
        except CorpusError:  # of which skipping will show whether it is the state's fault
            return False
        self._mixture = self._mix([p.counted for p in positions], [p.live for p in positions])
        return True

    def _skip(self) -> None:
        """Opens the sources and passes over the documents before the cursor."""
        self._readers = [SourceReader(source) for source in self._sources]
        self._mixture = self._mix()
        skipped = 0
        while skipped < self.cursor:
            self._check()
            source = self._mixture.next()
            if source is None:
                raise CorpusError(
                    f"corpus: ends after {skipped} documents, and {self.cursor} have been "
                    "harvested; give the same corpus again"
                )
            if self._readers[source].skip():
                self._mixture.add(source)
                skipped += 1
            else:
                self._mixture.drop(source)

    def _mix(self, counts: list[int] | None = None, live: list[bool] | None = None) -> Mixture:
        return Mixture([source.spec.weight for source in self._sources], counts, live)


def corpus_sources(corpus: CorpusSpec) -> list[Source]:
    """The sources in their order, each with its place in the configuration."""
    if not corpus.sources:
        return [Source(name, "corpus", spec) for name, spec in corpus.named_sources.items()]
    return [Source(name, f"corpus.sources.{name}", spec) for name, spec in corpus.sources.items()]


def read_documents(corpus: CorpusSpec) -> Iterator[Document]:
    """All documents of a corpus from the first on. Raises CorpusError."""
    return iter(CorpusReader(corpus))


def check_corpus(corpus: CorpusSpec) -> None:
    """Raises CorpusError if a source is plainly not there or not to be read. Touches no network."""
    inputs = [source.key for source in corpus_sources(corpus) if source.spec.path == "-"]
    if len(inputs) > 1:
        raise CorpusError(f"{inputs[1]}.path: standard input is {inputs[0]} already; give a file")
    for source in corpus_sources(corpus):
        _check_source(source)


def count_documents(corpus: CorpusSpec) -> int | None:
    """Number of documents, duplicates too, where files tell it; else None. Raises CorpusError."""
    total = 0
    for source in corpus_sources(corpus):
        local = local_files(source.spec, source.key)
        if local is None:
            return None
        try:
            total += count_rows(local, source.spec.limit)
        except read_errors() as error:
            raise CorpusError(
                f"{source.key}.path: {source.spec.path}: cannot be read ({first_line(error)})"
            ) from None
    return total


def _check_source(source: Source) -> None:
    spec, local = source.spec, local_files(source.spec, source.key)
    if spec.path == "-" and spec.format == "parquet":
        raise CorpusError(
            f"{source.key}.format: parquet is not read from standard input; give jsonl, text, lines"
        )
    kind = local.kind if local else spec.format
    if spec.chat_column is not None and kind in ("text", "lines"):
        raise CorpusError(
            f"{source.key}.chat_column: {spec.path} is read as {kind}, without columns; "
            "give a .parquet or .jsonl file"
        )
