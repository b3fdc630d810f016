"""Pairs the token positions of models with different tokenizers by the characters they end at.

Pure numpy, linear in the characters. Two positions pair when after each of them its model has read
exactly the same characters of the text, all of them whole: a token that holds only the first
bytes of a character does not count as having read it. Nothing is decoded or truncated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int32, Int64


@dataclass(frozen=True)
class Tokens:
    """The tokens of one document under one tokenizer, with the characters each covers.

    template: the document is a chat in a model's template, and tokens of the template that are
    not to be paired are among these; they cover no characters.
    """

    ids: Int32[np.ndarray, " tokens"]
    starts: Int32[np.ndarray, " tokens"]
    ends: Int32[np.ndarray, " tokens"]
    template: bool = False

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
    """Aligns one document's tokens of n >= 1 models; one tokenizer for all gives the identity.

    In a chat that is the identity on the tokens that cover characters, if all models read the
    same tokens (their templates may differ).
    """
    if len(tokens) == 1 or (same_tokenizer and _read_the_same(tokens)):
        first = tokens[0]
        rows = np.flatnonzero(first.ends > first.starts) if first.template else None
        positions = [np.arange(len(first)) if rows is None else rows] * len(tokens)
        char_end = first.ends[positions[0]]
    else:
        cuts = [boundaries(one.starts, one.ends) for one in tokens]
        last = max(int(ends[-1]) if len(ends) else 0 for _, ends in cuts)
        models_at = np.bincount(np.concatenate([ends for _, ends in cuts]), minlength=last + 1)
        char_end = np.flatnonzero(models_at == len(tokens)).astype(np.int32)
        positions = [_look_up(where, ends, char_end, last) for where, ends in cuts]
    starts = [one.starts[index] for one, index in zip(tokens, positions, strict=True)]
    return Pairing(tuple(positions), np.minimum.reduce(starts), char_end)


def stretches(tokens: Sequence[Tokens], pairing: Pairing) -> tuple[Int64[np.ndarray, " rows"], ...]:
    """For each model the first token of every row's stretch, whose last is the row's position.

    A stretch begins behind the row before; tokens that cover no characters are left out at its
    beginning, so that a template that is dropped stays out of the text behind it.
    """
    return tuple(
        _stretch_starts(one, position)
        for one, position in zip(tokens, pairing.positions, strict=True)
    )


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


def _read_the_same(tokens: Sequence[Tokens]) -> bool:
    first, *others = tokens
    return not first.template or all(
        np.array_equal(first.ids, other.ids)
        and np.array_equal(first.starts, other.starts)
        and np.array_equal(first.ends, other.ends)
        for other in others
    )


def _look_up(
    where: np.ndarray, ends: np.ndarray, char_end: np.ndarray, last: int
) -> Int64[np.ndarray, " rows"]:
    """The token that ends at each of `char_end`, by a table over the characters."""
    token_at = np.zeros(last + 1, np.int64)
    token_at[ends] = where
    return token_at[char_end]


def _stretch_starts(
    tokens: Tokens, positions: Int64[np.ndarray, " rows"]
) -> Int64[np.ndarray, " rows"]:
    behind = np.append(0, positions[:-1] + 1)[: len(positions)]
    visible = np.append(np.flatnonzero(tokens.ends > tokens.starts), len(tokens))
    return np.minimum(visible[np.searchsorted(visible, behind)], positions)
