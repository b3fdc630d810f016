"""The documents of a store as sequences of one model's tokens, all of one length.

Documents are laid out one behind the other in the order of the store, with a separator between them
if one is given, and cut every `ctx_len` positions. A token has no row where no token of the other
models ended at its end, or where the harvest left it out (`harvest.skip_first` and the like). Up to
the document's last row it is there all the same where the text can be tokenized again
(`Texts`), and missing where it cannot. Documents without rows are not there, nor is what is
left at the end, less than a sequence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int32, Int64

from analyze.causal.passages import chats, find_rows, row_edges
from harvest.models.texts import TextReader
from store.reader import Store


@dataclass(frozen=True)
class Placed:
    """Successive tokens, separators among them, and which position each row has in the whole."""

    tokens: Int32[np.ndarray, " positions"]
    of_rows: Int64[np.ndarray, " rows"]


@dataclass(frozen=True)
class Sequences:
    """How many sequences of how many tokens there are, and positions left over."""

    count: int
    ctx_len: int
    left_out: int

    @property
    def positions(self) -> int:
        """Positions in whole sequences."""
        return self.count * self.ctx_len


class Texts:
    """All tokens of a document up to its last row's, and the place of each of its rows in them.

    None for those that are laid out by their rows alone: chats, which were read in a template;
    texts whose tokens are no longer those of the store; all without a reader; and those of an
    import, whose rows are all tokens there are. `not_whole` counts all but the last. Costs the
    tokenization.
    """

    def __init__(self, store: Store, model: str, reader: TextReader | None) -> None:
        self._store, self._column, self._reader = store, f"token_{model}", reader
        self._edges, self._chats = row_edges(store), chats(store)
        self.not_whole = 0

    def __call__(self, documents: Sequence[int]) -> list[Placed | None]:
        """Those of each document; all have rows."""
        if has_every_token(self._store):
            return [None] * len(documents)
        found = {} if self._reader is None else self._found(self._reader, documents)
        self.not_whole += len(documents) - len(found)
        return [found.get(document) for document in documents]

    def _found(self, reader: TextReader, documents: Sequence[int]) -> dict[int, Placed]:
        plain = [document for document in documents if not self._chats[document]]
        tokens = reader([self._store.documents.text(document) for document in plain])
        found = {}
        for document, of_text in zip(plain, tokens, strict=True):
            rows = int(self._edges[document]), int(self._edges[document + 1])
            ends = self._store.column_range("char_end", *rows)
            places = find_rows(of_text, ends, self._store.column_range(self._column, *rows))
            if places is not None:
                found[document] = Placed(of_text.ids[: int(places[-1]) + 1], places)
        return found


def has_every_token(store: Store) -> bool:
    """Whether the rows are all tokens there are: those of an import are its caches' own."""
    return "import" in store.schema.config


class TokenLayer:
    """Lays out a store batch by batch, in storage order, each row once."""

    def __init__(self, store: Store, model: str, separator: int | None, texts: Texts) -> None:
        self._store, self._column = store, f"token_{model}"
        self._separator, self._texts = separator, texts
        self._position = 0
        self._document: int | None = None
        self._whole: Placed | None = None
        self._begun, self._rows = 0, 0  # of that document: its first position, rows laid out

    def place(self, chunk: int, rows: Int64[np.ndarray, " rows"]) -> Placed:
        """The next rows, numbers in the store, all of one chunk."""
        local = rows - int(self._store.chunk_rows_before[chunk])
        ids = self._store.column_chunk(self._column, chunk)[local]
        documents = self._store.document_chunk(chunk)[local]
        firsts = np.flatnonzero(np.diff(documents, prepend=-1))
        begins = [n for n in documents[firsts].tolist() if n != self._document]
        texts = dict(zip(begins, self._texts(begins), strict=True))
        tokens: list[np.ndarray] = [np.zeros(0, np.int32)]
        of_rows: list[np.ndarray] = []
        for run in np.split(np.arange(len(rows)), firsts[1:]):
            document = int(documents[run[0]])
            if document != self._document:
                tokens.append(self._begin(document, texts[document]))
            if self._whole is None:
                tokens.append(ids[run])
                of_rows.append(self._position + np.arange(len(run)))
                self._position += len(run)
            else:
                places = self._whole.of_rows[self._rows : self._rows + len(run)]
                of_rows.append(self._begun + places)
            self._rows += len(run)
        return Placed(np.concatenate(tokens), np.concatenate(of_rows))

    def _begin(self, document: int, whole: Placed | None) -> Int32[np.ndarray, " positions"]:
        """What comes before the document's rows: a separator, and all of its text if it is had."""
        first = self._document is None
        between = [] if first or self._separator is None else [self._separator]
        self._begun = self._position + len(between)
        self._document, self._whole, self._rows = document, whole, 0
        tokens = np.array(between, np.int32)
        if whole is not None:
            tokens = np.concatenate([tokens, whole.tokens])
        self._position += len(tokens)
        return tokens
