"""Shows tokenizations of one text under each other, and tables of what pairs.

Every row of the alignment is a column on the screen: its number, and below it each model's tokens
since the row before. The token that pairs stands in brackets, rows in two colours by turns;
tokens that pair with nothing are struck out, or end with ¦ where there are no colours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from harvest.align_sample import Aligned, Tally
from harvest.corpus.document import Document
from harvest.text.align import Tokens
from harvest.text.chat import transcript_marks

ROW_STYLES = ("bold green", "bold magenta")
UNPAIRED = "dim strike"
VISIBLE = {" ": "·", "\n": "↵", "\r": "␍", "\t": "→", "\u00a0": "⍽"}
INCOMPLETE = "▯"  # the first bytes of a character, or of several, that another token completes

Decode = Callable[[int], str]


def side_by_side(
    aligned: Aligned, models: Sequence[str], decode: Sequence[Decode], width: int, rows: int | None
) -> RenderableType:
    """The first `rows` rows (None: all, and what stands behind the last) in lines of `width`.

    decode: per model the text of a token id, for tokens that stand for no characters.
    """
    positions = aligned.pairing.positions
    count = len(aligned.pairing) if rows is None else min(rows, len(aligned.pairing))
    per_model = []
    for tokens, paired, name in zip(aligned.tokens, positions, decode, strict=True):
        words = token_texts(aligned.document, tokens, name)
        edges = [0, *(paired[:count] + 1).tolist()]
        cells = [
            _cell(words[start:stop], ROW_STYLES[row % 2])
            for row, (start, stop) in enumerate(pairwise(edges))
        ]
        if count == len(aligned.pairing):
            cells.append(_cell(words[edges[-1] :], None))
        per_model.append(cells)
    more = len(aligned.pairing) - count
    lines = _lines(per_model, models, width)
    return Group(*lines, Text(f"... {more:,} more rows", "dim")) if more else Group(*lines)


def token_texts(document: Document, tokens: Tokens, decode: Decode) -> list[str]:
    """Each token as it can be seen: its characters of the document, or its own text."""
    own = np.ones(len(tokens), bool)
    if tokens.template:  # in a chat, what is not content is the template's and looks like it
        marks = transcript_marks(document.turns)
        turn = np.searchsorted(marks[:, 2], tokens.starts, side="right") - 1
        own = (turn >= 0) & (tokens.ends <= marks[turn, 3]) & (tokens.ends > tokens.starts)
    ahead = np.append(tokens.starts[1:], len(document.text))  # a piece ends in its successor
    whole = np.minimum(tokens.ends, ahead)
    columns = (tokens.ids, tokens.starts, tokens.ends, whole, own)
    return [
        visible(document.text[start:upto]) + INCOMPLETE * (upto < end)
        if in_text and end > start
        else visible(decode(token))
        for token, start, end, upto, in_text in zip(*(c.tolist() for c in columns), strict=True)
    ]


def visible(text: str) -> str:
    """Text on one line, with a sign for white space and a code for what does not print."""
    return "".join(
        VISIBLE.get(char) or (char if char.isprintable() else f"\\u{ord(char):04x}")
        for char in text
    )


def tally_table(tallies: Sequence[Tally], models: Sequence[str]) -> Table:
    """Documents and rows per source and label; below, per model, tokens and the share that pairs.

    A model is a line, so that any number of them fits; only sources and labels may be folded.
    """
    labelled = any(one.label for one in tallies)
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    names = ["source", *(["label"] if labelled else [])]
    for column in names:
        table.add_column(column, overflow="fold")
    for column in ("docs", "rows", "model", "tokens", "paired"):
        table.add_column(column, justify="left" if column == "model" else "right", no_wrap=True)
    blank = [""] * (len(names) + 2)
    for one in tallies:
        own = [Text(one.source), Text(one.label)][: len(names)]
        head: list[RenderableType] = [*own, f"{one.documents:,}", f"{one.rows:,}"]
        per_model = zip(models, one.tokens, one.paired, strict=True)
        for number, (model, tokens, share) in enumerate(per_model):
            table.add_row(*(blank if number else head), model, f"{tokens:,}", f"{share:.1%}")
    return table


def console(width: int | None = None) -> Console:
    """Prints to standard output; as wide as the terminal is."""
    return Console(highlight=False, width=width)


def _cell(words: Sequence[str], paired: str | None) -> Text:
    """Tokens of one model since the row before; the last one pairs if `paired` styles it."""
    cell = Text()
    last = len(words) - 1
    for index, word in enumerate(words):
        if paired and index == last:
            cell.append("[", "dim").append(word, paired).append("]", "dim")
        else:
            cell.append(word, UNPAIRED).append("¦", "dim")
    return cell


def _lines(per_model: list[list[Text]], models: Sequence[str], width: int) -> list[Text]:
    """Columns put side by side until the width is reached, then on in the next lines."""
    margin = max(len(name) for name in models) + 2
    lines: list[Text] = []
    used = width + 1
    for number, column in enumerate(zip(*per_model, strict=True)):
        size = max(cell.cell_len for cell in column)
        if not size:
            continue
        if used + size + 1 > width and used > margin:
            lines += [Text(" " * margin), *(Text(name.ljust(margin)) for name in models), Text()]
            used = margin
        names, *texts = lines[-len(models) - 2 : -1]
        names.append((str(number) if len(str(number)) <= size else "").ljust(size + 1), "dim")
        for line, cell in zip(texts, column, strict=True):
            line.append_text(cell).append(" " * (size + 1 - cell.cell_len))
        used += size + 1
    return lines
