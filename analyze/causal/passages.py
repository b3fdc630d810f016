"""Texts of a store as its models read them, and where in their tokens the store's rows are.

The text is tokenized as the harvest did; a row is found again by the character it ends at and its
token. Of a document longer than a context only the first window is taken, which the harvest began
at the same token; what follows a token plays no part in a causal model. Costs the tokenization.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64

from harvest.models.hooked import HookedModel
from harvest.models.texts import TextReader, TextTokens
from pipeline.errors import StoreError
from store.reader import Store

CHATS = "chats, which each model read in its own template"
CHANGED = "documents whose tokens are no longer those of the store"


@dataclass(frozen=True)
class Reading:
    """A passage for one model: ids, special tokens before the text included, and rows' places.

    The ids end one behind the last row's token, where there is one: it is the token that the
    model should predict there.
    """

    ids: Int64[np.ndarray, " tokens"]
    positions: Int64[np.ndarray, " rows"]


@dataclass(frozen=True)
class Passage:
    """The beginning of a document: its number, its rows' numbers in the store, each model's view.

    readings: by model name; positions ascend, and place r of each is of row r.
    """

    document: int
    rows: Int64[np.ndarray, " rows"]
    readings: dict[str, Reading]


@dataclass(frozen=True)
class Passages:
    """What was found again, in the order asked for, and how many documents were not, by reason."""

    found: tuple[Passage, ...]
    left_out: dict[str, int]


def sample_documents(
    store: Store, count: int, among: Bool[np.ndarray, " documents"] | None = None
) -> Int64[np.ndarray, " sampled"]:
    """Documents that have rows, at most `count`, ascending; as many of every label as can be.

    among: which may be taken (None: all; `store.documents.validation_mask` for held-out ones).
    Which are taken of a label is decided by their texts' hashes: the same for equal stores.
    """
    documents = store.documents
    has_rows = np.diff(row_edges(store)) > 0
    eligible = np.flatnonzero(has_rows if among is None else has_rows & among)
    order = eligible[np.lexsort((documents.hashes[eligible], documents.labels[eligible]))]
    labels = documents.labels[order]
    rank = np.arange(len(order)) - np.searchsorted(labels, labels)
    return np.sort(order[np.lexsort((labels, rank))][:count])


def documents_of(store: Store, rows: Int64[np.ndarray, " rows"]) -> Int64[np.ndarray, " documents"]:
    """The documents that some rows are of, each once, ascending."""
    return np.unique(np.searchsorted(row_edges(store)[1:], rows, side="right"))


def row_edges(store: Store) -> Int64[np.ndarray, " edges"]:
    """Rows [edges[d], edges[d + 1]) are of document d."""
    before = np.cumsum([0, *(part.rows for part in store.parts)])
    pieces = [first + ends for first, ends in zip(before, store.documents.row_ends, strict=False)]
    return np.concatenate([np.zeros(1, np.int64), *pieces])


def find_passages(
    store: Store, models: Mapping[str, HookedModel], documents: Int64[np.ndarray, " documents"]
) -> Passages:
    """The first window of each document with the store's rows in it; those without rows are not.

    models: those to read with, by their names in the store. Raises StoreError if rows are means
    over several tokens: then no position of a model has a row's activation.
    """
    harvest = store.schema.config.get("harvest", {})
    if harvest.get("pair") == "mean":
        raise StoreError(
            f"{store.path}: its rows are means over stretches of tokens (harvest.pair: mean), and "
            "no position of a model has such a one; harvest with pair: last to run models on them"
        )
    readers = {name: _Reader.of(model, harvest) for name, model in models.items()}
    edges = row_edges(store)
    of_chats = chats(store)
    found, left_out = [], dict.fromkeys((CHATS, CHANGED), 0)
    for document in documents.tolist():
        if of_chats[document]:
            left_out[CHATS] += 1
            continue
        passage = _passage(store, readers, document, int(edges[document]), int(edges[document + 1]))
        if passage is None:
            left_out[CHANGED] += 1
        elif len(passage.rows):
            found.append(passage)
    return Passages(tuple(found), {reason: number for reason, number in left_out.items() if number})


@dataclass(frozen=True)
class _Reader:
    """A model's tokenizer and how many of a text's own tokens its first window has."""

    read: TextReader
    budget: int

    @classmethod
    def of(cls, model: HookedModel, harvest: Mapping[str, object]) -> _Reader:
        read = TextReader(model.tokenizer, model.name)
        said = harvest.get("max_tokens")
        limits = [limit for limit in (said, model.context) if isinstance(limit, int)]
        return cls(read, min(limits, default=1024) - len(read.prefix))


def _passage(
    store: Store, readers: Mapping[str, _Reader], document: int, start: int, stop: int
) -> Passage | None:
    """One document's passage, or None if its rows are not among the tokens."""
    text = store.documents.text(document)
    char_end = store.column_range("char_end", start, stop)
    tokens = {name: reader.read([text])[0] for name, reader in readers.items()}
    places: dict[str, np.ndarray] = {}
    for name, one in tokens.items():
        where = find_rows(one, char_end, store.column_range(f"token_{name}", start, stop))
        if where is None:
            return None
        places[name] = where
    within = [places[name] < reader.budget for name, reader in readers.items()]
    keep = np.flatnonzero(np.logical_and.reduce(within))
    return Passage(
        document,
        start + keep,
        {
            name: _reading(reader, tokens[name], places[name][keep])
            for name, reader in readers.items()
        },
    )


def find_rows(
    tokens: TextTokens, char_end: Sequence[int] | np.ndarray, ids: Sequence[int] | np.ndarray
) -> Int64[np.ndarray, " rows"] | None:
    """Which token each row is of, by its last character and id, or None if one is not there.

    Several tokens may be alike in both: the bytes of one character. A row is of the last of them,
    which completes the character; several such rows are of the last ones, in order. (So a row is
    found one byte late where the harvest left out another of its alike: `harvest.outlier_norm`.)
    """
    there, wanted = _keys(tokens.ends, tokens.ids), _keys(char_end, ids)
    order = np.argsort(there, kind="stable")
    row_order = np.argsort(wanted, kind="stable")
    sorted_rows = wanted[row_order]
    alike_behind = np.searchsorted(sorted_rows, sorted_rows, "right") - 1 - np.arange(len(wanted))
    behind = np.empty_like(alike_behind)
    behind[row_order] = alike_behind
    place = np.searchsorted(there[order], wanted, "right") - 1 - behind
    if not len(place):
        return place
    if place.min() < 0 or not np.array_equal(there[order][place], wanted):
        return None
    positions = order[place]
    return positions if bool(np.all(np.diff(positions) > 0)) else None


def _keys(char_end: Sequence[int] | np.ndarray, ids: Sequence[int] | np.ndarray) -> np.ndarray:
    return np.asarray(char_end, np.int64) << 32 | np.asarray(ids, np.int64)


def _reading(reader: _Reader, tokens: TextTokens, places: Int64[np.ndarray, " rows"]) -> Reading:
    prefix = reader.read.prefix
    stop = min(reader.budget, int(places[-1]) + 2) if len(places) else 0
    ids = np.concatenate([np.array(prefix, np.int64), tokens.ids[:stop].astype(np.int64)])
    return Reading(ids, places + len(prefix))


def chats(store: Store) -> Bool[np.ndarray, " documents"]:
    """Which documents are of a source of chats."""
    corpus = store.schema.config.get("corpus", {})
    named = corpus.get("sources") or {store.schema.sources[0]: corpus}
    of_source = [bool(named.get(name, {}).get("chat_column")) for name in store.schema.sources]
    return np.array(of_source)[store.documents.sources]
