"""The text of a document and the characters that each of its rows stands for, from token ids.

Three ways, by what is known: decoded by a tokenizer (about 3 us a token), the token ids
themselves, or the rows' numbers. Spans run forwards and lie within the text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import ModelError

UNFINISHED = "\N{REPLACEMENT CHARACTER}"
LONGEST_CHARACTER = 8  # tokens; bytes are at most four, but a tokenizer may mark some


@dataclass(frozen=True)
class Transcript:
    """A text, and first and last-but-one character of each row's own span, int32 (rows,)."""

    text: str
    start: np.ndarray
    end: np.ndarray


def spell(words: list[str]) -> Transcript:
    """Words, one per row, separated by spaces."""
    sizes = np.fromiter(map(len, words), np.int64, len(words))
    end = np.cumsum(sizes + 1) - 1
    return Transcript(" ".join(words), (end - sizes).astype(np.int32), end.astype(np.int32))


def spell_rows(start: int, stop: int) -> Transcript:
    """The numbers of rows [start, stop)."""
    return spell([f"row {row}" for row in range(start, stop)])


def decode(ids: Sequence[int], decoder: Callable[[list[int]], str]) -> Transcript:
    """Decodes token by token; tokens that only together make a character share its span."""
    pieces: list[str] = []
    starts, ends = [], []
    window: list[int] = []  # tokens whose text is out, then `held` whose text may be unfinished
    shown, held, length = "", 0, 0
    for number, token in enumerate(ids):
        window.append(token)
        held += 1
        text = decoder(window)
        last = number == len(ids) - 1
        if text.endswith(UNFINISHED) and held < LONGEST_CHARACTER and not last:
            continue
        # A decoder may look back (white space, punctuation) and change what is already out.
        piece = text[len(shown) :] if text.startswith(shown) else decoder(window[-held:])
        pieces.append(piece)
        starts += [length] * held
        length += len(piece)
        ends += [length] * held
        window, held = window[-held:], 0
        shown = decoder(window)
    return Transcript("".join(pieces), np.array(starts, np.int32), np.array(ends, np.int32))


class Decoder:
    """A tokenizer.json, used for decoding only: no code of a model's is ever run.

    Raises ModelError if there is none at `source`, a folder, a file or a name on the hub.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self._tokenizer = _load(source)

    def __call__(self, ids: list[int]) -> str:
        """The text of some tokens, special ones included."""
        return str(self._tokenizer.decode(ids, skip_special_tokens=False))

    @cached_property
    def largest_id(self) -> int:
        """The largest token id that it knows."""
        return max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the whole tokenizer."""
        content = self._tokenizer.to_str().encode()
        return f"blake2b:{hashlib.blake2b(content, digest_size=16).hexdigest()}"


def _load(source: str) -> Any:
    from tokenizers import Tokenizer

    path = Path(source).expanduser()
    file = path / "tokenizer.json" if path.is_dir() else path
    try:
        return (
            Tokenizer.from_file(str(file)) if file.exists() else Tokenizer.from_pretrained(source)
        )
    except Exception as error:  # tokenizers raises nothing more special
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"--tokenizer: {source}: no tokenizer.json there that can be read, and none of that "
            f"name on the hub ({reason}); name the model's folder, its tokenizer.json or its hub "
            "name"
        ) from None
