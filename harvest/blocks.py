"""Groups documents into the blocks that are committed to the store one by one.

Where a block ends depends only on the documents from its start on. So a harvest that resumes at
a commit cuts the same blocks, runs the same batches, and gets the same bits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from harvest.corpus import Document


def cut_blocks(
    documents: Iterable[Document], max_documents: int, max_characters: int
) -> Iterator[list[Document]]:
    """Blocks of at most `max_documents` documents, ended early once `max_characters` is reached."""
    block: list[Document] = []
    characters = 0
    for document in documents:
        block.append(document)
        characters += len(document.text)
        if len(block) >= max_documents or characters >= max_characters:
            yield block
            block, characters = [], 0
    if block:
        yield block
