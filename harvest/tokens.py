"""Text to token ids with character spans, by a fast tokenizer; nothing is ever truncated.

Spans come from the tokenizer without its post-processor: that step only adds special tokens and,
in byte-level tokenizers, trims white space out of the spans, which would empty the span of a
token of nothing but white space. About 0.5M tokens/s on one core.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from harvest.align import Tokens
from pipeline.errors import ModelError


class TextTokenizer:
    """Tokenizes plain text for one model.

    prefix: ids of the special tokens that the tokenizer puts before a text (often BOS, or none);
    they belong before every window. serialized: equal for two models that cut all text alike.
    """

    def __init__(self, tokenizer: Any, model: str) -> None:
        from tokenizers import Tokenizer

        if not getattr(tokenizer, "is_fast", False):
            raise ModelError(
                f"models.{model}: {type(tokenizer).__name__} gives no character offsets; "
                "use a model folder that has a tokenizer.json (a fast tokenizer)"
            )
        backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        backend.post_processor = None
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        self.serialized: str = backend.to_str()
        self.prefix = _special_prefix(tokenizer, model)

    def encode(self, texts: list[str]) -> list[Tokens]:
        """The text tokens of each document, special tokens left out."""
        return [
            _tokens(encoding)
            for encoding in self._backend.encode_batch(texts, add_special_tokens=False)
        ]


def _tokens(encoding: Any) -> Tokens:
    spans = np.array(encoding.offsets, np.int32).reshape(-1, 2)
    return Tokens(np.array(encoding.ids, np.int32), spans[:, 0].copy(), spans[:, 1].copy())


def _special_prefix(tokenizer: Any, model: str) -> tuple[int, ...]:
    """Ids that stand before the text when special tokens are asked for."""
    text = "a"
    plain = tokenizer(text, add_special_tokens=False)["input_ids"]
    full = tokenizer(text, add_special_tokens=True)["input_ids"]
    for start in range(len(full) - len(plain) + 1):
        if full[start : start + len(plain)] == plain:
            return tuple(full[:start])
    raise ModelError(
        f"models.{model}: its tokenizer changes the text's own tokens when it adds special "
        f"tokens ({plain} becomes {full}); such a tokenizer is not supported"
    )
