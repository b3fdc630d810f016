"""Groups documents into the blocks that are committed to the store one by one.

Where a block ends depends only on the documents from its start on, and on what is a duplicate. So
a harvest that resumes at a commit cuts the same blocks, runs the same batches, and gets the same
bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from harvest.corpus.document import Document
from harvest.corpus.reader import CorpusReader
from harvest.corpus.seen import HashSet
from pipeline.specs import CorpusSpec
from store.block import document_hash, encode_text

DUPLICATES = "duplicate documents"


@dataclass(frozen=True)
class DocumentBlock:
    """Some documents that a task harvests together; the last block may have none.

    numbers: each document's number in the mixed corpus. end, state: where the corpus is read on
    behind this block. excluded: how many documents were left out, by reason; those of other tasks
    are not counted.
    """

    documents: list[Document]
    numbers: list[int]
    end: int
    state: dict[str, Any]
    excluded: dict[str, int]


def read_blocks(
    corpus: CorpusSpec,
    *,
    cursor: int,
    state: dict[str, Any] | None,
    task: int,
    of: int,
    seen: Iterable[int],
    max_documents: int,
    max_characters: int,
    check: Callable[[], None] = lambda: None,
) -> Iterator[DocumentBlock]:
    """Blocks of task `task` of `of`, from document `cursor` on. Raises CorpusError.

    A block has at most `max_documents`, and ends early once it has `max_characters`. state: that
    of the block that ended at `cursor`, a shortcut. seen: hashes of the documents before that are
    not to be harvested again, where the corpus is deduplicated. check: called for every document,
    also of those passed over; what it raises ends the reading.
    """
    reader = CorpusReader(corpus, cursor, state, check)
    chooser = _Chooser(task, of, HashSet(seen) if corpus.deduplicate else None)
    documents: list[Document] = []
    numbers: list[int] = []
    characters = 0
    for document in reader:
        if chooser.leaves_out(document):
            continue
        documents.append(document)
        numbers.append(reader.cursor - 1)
        characters += len(document.text)
        if len(documents) >= max_documents or characters >= max_characters:
            yield DocumentBlock(
                documents, numbers, reader.cursor, reader.state(), chooser.take_excluded()
            )
            documents, numbers, characters = [], [], 0
    excluded = chooser.take_excluded()
    if documents or excluded:
        yield DocumentBlock(documents, numbers, reader.cursor, reader.state(), excluded)


class _Chooser:
    """Tells a task's documents from the others', and new ones from duplicates."""

    def __init__(self, task: int, of: int, seen: HashSet | None) -> None:
        self._task, self._of, self._seen = task, of, seen
        self._duplicates = 0

    def leaves_out(self, document: Document) -> bool:
        if self._of == 1 and self._seen is None:
            return False
        number = document_hash(encode_text(document.text))
        if number % self._of != self._task:
            return True
        if self._seen is None or self._seen.add(number):
            return False
        self._duplicates += 1
        return True

    def take_excluded(self) -> dict[str, int]:
        """What was left out since the last call, by reason."""
        duplicates, self._duplicates = self._duplicates, 0
        return {DUPLICATES: duplicates} if duplicates else {}
