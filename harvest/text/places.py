"""Where in a chat template's own text its places are: turn start, role, header end, turn end.

Pure. The text between two contents is the footer of one turn and the header of the next, and a
place is the end of something in them that templates of all kinds have. Places are kept as
distances from the contents, so one conversation's places serve all of the same roles.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

PLACES = ("turn_start", "role", "header_end", "turn_end")
NONE = -1


@dataclass(frozen=True)
class Marks:
    """A template's special tokens: all of them, and the one that begins every text ("" if none)."""

    specials: re.Pattern[str]
    bos: str

    @classmethod
    def of(cls, specials: Sequence[str], bos: str) -> Marks:
        """Longer special tokens are found before those that they begin with."""
        longest_first = sorted((text for text in specials if text), key=len, reverse=True)
        pattern = "|".join(map(re.escape, longest_first)) or r"(?!)"
        return cls(re.compile(pattern), bos)


@dataclass(frozen=True)
class Layout:
    """The pieces of text around n contents, and how far from the contents the places are.

    before: characters from turn_start, role and header_end to the content behind them; after:
    from the content's end to turn_end; NONE where a turn has no such place. bos: the special
    token that begins the text and is no part of a turn ("" if none).
    """

    pieces: tuple[str, ...]
    before: Int64[np.ndarray, "turns 3"]
    after: Int64[np.ndarray, " turns"]
    bos: str

    def places(
        self, begins: Int64[np.ndarray, " turns"], ends: Int64[np.ndarray, " turns"]
    ) -> Int64[np.ndarray, "turns 4"]:
        """Characters of the rendered text at which each turn's PLACES end; NONE: no such place."""
        headers = np.where(self.before == NONE, NONE, begins[:, None] - self.before)
        footers = np.where(self.after == NONE, NONE, ends + self.after)
        return np.concatenate([headers, footers[:, None]], axis=1)


def layout(
    pieces: Sequence[str], footers: Sequence[str], roles: Sequence[str], marks: Marks
) -> Layout:
    """Finds the places. footers: what stands behind each turn's content that belongs to it.

    A footer that the piece behind the content does not begin with is not believed: the whole
    piece is then the next turn's header, and the turn has no end.
    """
    known = [
        footer if piece.startswith(footer) else ""
        for footer, piece in zip(footers, pieces[1:], strict=True)
    ]
    before = [pieces[0], *(piece[len(end) :] for piece, end in zip(pieces[1:], known, strict=True))]
    bos = _bos(pieces, marks)
    closing = {found.group() for end in known if (found := marks.specials.search(end))}
    headers = [_header(before[0][len(bos) :], closing), *before[1:-1]]
    return Layout(
        pieces=tuple(pieces),
        before=np.array(
            [
                _header_places(header, role, marks)
                for header, role in zip(headers, roles, strict=True)
            ],
            np.int64,
        ),
        after=np.array([_turn_end(end, marks) for end in known], np.int64),
        bos=bos,
    )


def _bos(pieces: Sequence[str], marks: Marks) -> str:
    """The token that begins the text, unless turns begin with it too."""
    stands = marks.bos and pieces[0].startswith(marks.bos)
    return marks.bos if stands and sum(piece.count(marks.bos) for piece in pieces) == 1 else ""


def _header(text: str, closing: set[str]) -> str:
    """The first turn's header: what stands behind any turn that the template adds by itself."""
    return text[max((text.rfind(end) + len(end) for end in closing if end in text), default=0) :]


def _header_places(header: str, role: str, marks: Marks) -> tuple[int, int, int]:
    """Distances of turn_start, role and header_end from the header's end.

    Of places at one character the last is kept; a header without special tokens has no turn_start.
    """
    if not header:
        return NONE, NONE, NONE
    found = [match.group() for match in marks.specials.finditer(header)]
    start = header.rfind(found[0]) + len(found[0]) if found else 0
    if found:
        word = re.compile(r"\s*(\w+)").match(header, start)
        role_end = word.end() if word else 0
    else:
        words = list(re.finditer(rf"\b{re.escape(role)}\b", header, re.IGNORECASE))
        role_end = words[-1].end() if words else 0
    ends = [end if 0 < end < len(header) else NONE for end in (start, role_end)]
    return (
        NONE if ends[0] == NONE else len(header) - ends[0],
        NONE if ends[1] == NONE else len(header) - ends[1],
        0,
    )


def _turn_end(footer: str, marks: Marks) -> int:
    """Distance of turn_end from the content: the end of the first special token, or of all."""
    found = marks.specials.search(footer)
    return found.end() if found else (len(footer) or NONE)
