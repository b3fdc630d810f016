"""Pairs the token positions of models with different tokenizers by the characters they end at.

Pure numpy, linear in the tokens. Two positions pair when after each of them its model has read
exactly the same characters of the text, all of them whole: a token that holds only the first
bytes of a character does not count as having read it. Nothing is decoded or truncated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from jaxtyping import Int32, Int64


@dataclass(frozen=True)
class Tokens:
    """The text tokens of one document under one tokenizer, with the characters each covers."""

    ids: Int32[np.ndarray, " tokens"]
    starts: Int32[np.ndarray, " tokens"]
    ends: Int32[np.ndarray, " tokens"]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Pairing:
    """Aligned positions of one document: for each model the index of the paired tokens.

    Indices ascend in every model; `char_start` is the smallest start of a row's tokens.
    """

    positions: tuple[Int64[np.ndarray, " rows"], ...]
    char_start: Int32[np.ndarray, " rows"]
    char_end: Int32[np.ndarray, " rows"]

    def __len__(self) -> int:
        return len(self.char_end)


def pair(tokens: Sequence[Tokens], same_tokenizer: bool = False) -> Pairing:
    """Aligns one document's tokens of n >= 1 models; one tokenizer for all gives the identity."""
    if same_tokenizer or len(tokens) == 1:
        positions = [np.arange(len(tokens[0]))] * len(tokens)
        char_end = tokens[0].ends
    else:
        complete = [boundaries(one.starts, one.ends) for one in tokens]
        char_end = reduce(_intersection, [ends for _, ends in complete])
        positions = [where[np.searchsorted(ends, char_end)] for where, ends in complete]
    starts = [one.starts[index] for one, index in zip(tokens, positions, strict=True)]
    return Pairing(tuple(positions), np.minimum.reduce(starts), char_end)


def boundaries(
    starts: Int32[np.ndarray, " tokens"], ends: Int32[np.ndarray, " tokens"]
) -> tuple[Int64[np.ndarray, " boundaries"], Int32[np.ndarray, " boundaries"]]:
    """Tokens that cut the text cleanly: everything before ends by there, all after starts later.

    Returns their indices and the character each ends at, both strictly ascending. Tokens that
    cover no character never count. Of the pieces of one character only the last does, since its
    other pieces are followed by one that starts before they end.
    """
    visible = np.flatnonzero(ends > starts)
    if not len(visible):
        return visible, ends[visible]
    read = np.maximum.accumulate(ends[visible])
    ahead = np.minimum.accumulate(starts[visible][::-1])[::-1]
    clean = np.append(read[:-1] <= ahead[1:], True)
    return visible[clean], read[clean]


def _intersection(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.intersect1d(left, right, assume_unique=True)
