"""How a model reads a plain text: the tokens that a harvest gives it, for who runs it again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int32

from harvest.corpus.document import Document
from harvest.text.tokens import TextTokenizer


@dataclass(frozen=True)
class TextTokens:
    """A text's own tokens, and the character behind the last one that each has read."""

    ids: Int32[np.ndarray, " tokens"]
    ends: Int32[np.ndarray, " tokens"]


class TextReader:
    """A model's tokenizer as the harvest uses it; nothing is truncated.

    model: whose it is, for errors; prefix: ids of the special tokens that stand before every text.
    Raises ModelError for a tokenizer without character offsets.
    """

    def __init__(self, tokenizer: Any, model: str) -> None:
        self._tokenizer = TextTokenizer(tokenizer, model)
        self.prefix = self._tokenizer.prefix

    def __call__(self, texts: Sequence[str]) -> list[TextTokens]:
        """The tokens of each text, without special ones around it."""
        documents = [Document(text, "") for text in texts]
        found = self._tokenizer.encode(documents)  # plain texts are never left out
        return [TextTokens(one.ids, one.ends) for one in found]  # type: ignore[union-attr]
