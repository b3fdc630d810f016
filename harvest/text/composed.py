"""Characters that a tokenizer's normalizer merged into the one before, which offsets leave out.

Behind a normalizer such as NFC (Qwen) a letter and its combining accent are one character, and
the tokenizer gives its token the letter's place only. The token has read the accent too, so its
span is made to end behind it; and behind all that stand there, as NFC may change their order.
Costs nothing where the spans leave no gap.
"""

from __future__ import annotations

import sys
import unicodedata
from functools import cache

import numpy as np
from jaxtyping import Bool, Int32


def with_composed(
    text: str, starts: Int32[np.ndarray, " tokens"], ends: Int32[np.ndarray, " tokens"]
) -> Int32[np.ndarray, " tokens"]:
    """The ends, moved behind combining characters of `text` where no token covers the first."""
    gap = np.flatnonzero(np.append(starts, len(text))[1:] > ends)
    gap = gap[ends[gap] > starts[gap]]
    if not len(gap) or text.isascii():
        return ends
    combining = _combining()[np.frombuffer(text.encode("utf-32-le"), np.uint32)]
    base_at = np.where(np.append(combining, False), len(text), np.arange(len(text) + 1))
    next_base = np.minimum.accumulate(base_at[::-1])[::-1]
    moved = ends.copy()
    moved[gap] = next_base[ends[gap]]
    return moved


@cache
def _combining() -> Bool[np.ndarray, " characters"]:
    """Whether a character may be merged into one before it, for every character there is."""
    table = np.zeros(sys.maxunicode + 1, bool)
    for point in range(sys.maxunicode + 1):
        decomposed = unicodedata.normalize("NFD", chr(point))
        for part in decomposed[1:]:
            table[ord(part)] = True
        table[point] |= unicodedata.combining(chr(point)) > 0
    return table
