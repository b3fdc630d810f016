"""Some rows of a store as a reader would want to see them: text around each, token ids, norms.

Reads only the chunks that these rows lie in, and the texts of their documents.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import StoreError
from store.reader import Store
from store.sweep import read_range


@dataclass(frozen=True)
class HeadRow:
    """One row. `text` is its own characters; `before` and `after` stand around them.

    tokens: token id by model; norms: L2 norm of the activation by hookpoint.
    """

    row: int
    document: int
    label: str
    source: str
    before: str
    text: str
    after: str
    char_start: int
    char_end: int
    tokens: dict[str, int]
    norms: dict[str, float]


def head(store: Store, start: int, count: int, before: int, after: int) -> list[HeadRow]:
    """At most `count` rows from `start` on, with so many characters around each.

    Raises StoreError if the store has no row `start`.
    """
    if not 0 <= start < store.rows:
        there = f"its rows are 0 to {store.rows - 1}" if store.rows else "it holds no rows yet"
        remedy = "give another --start" if store.rows else "run the harvest or the import again"
        raise StoreError(f"{store.path}: has no row {start}: {there}; {remedy}")
    stop = min(store.rows, start + count)
    columns = {
        name: store.column_range(name, start, stop).tolist() for name in store.schema.row_columns
    }
    norms = {
        name: rows.double().norm(dim=1).tolist()
        for name, rows in read_range(store, start, stop).activations.items()
    }
    documents = store.documents
    texts = {number: documents.text(number) for number in dict.fromkeys(columns["document"])}
    found = []
    for at, document in enumerate(columns["document"]):
        first, last = columns["char_start"][at], columns["char_end"][at]
        text = texts[document]
        found.append(
            HeadRow(
                row=start + at,
                document=document,
                label=documents.label_names[int(documents.labels[document])],
                source=documents.source_names[int(documents.sources[document])],
                before=text[max(0, first - before) : first],
                text=text[first:last],
                after=text[last : last + after],
                char_start=first,
                char_end=last,
                tokens={model: columns[f"token_{model}"][at] for model in store.schema.models},
                norms={name: values[at] for name, values in norms.items()},
            )
        )
    return found


def visible(text: str, spaces: bool = False) -> str:
    """Text on one line: line ends, tabs and what has no glyph as signs; spaces too if asked."""
    return "".join(_sign(character, spaces) for character in text)


def _sign(character: str, spaces: bool) -> str:
    signs = {"\n": "↵", "\r": "␍", "\t": "⇥", **({" ": "·"} if spaces else {})}
    if character in signs or character.isprintable():
        return signs.get(character, character)
    return ascii(character)[1:-1]
