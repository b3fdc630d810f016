"""Documents to token ids with character spans, by a fast tokenizer; nothing is ever truncated.

Spans come from the tokenizer without its post-processor: that step only adds special tokens and,
in byte-level tokenizers, trims white space out of the spans, which would empty the span of a
token of nothing but white space. About 1M tokens/s on one core, a seventh of it in Python.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, Literal

import numpy as np
from jaxtyping import Int64

from harvest.corpus.document import Document
from harvest.text.align import Tokens
from harvest.text.chat import to_transcript
from harvest.text.composed import with_composed
from harvest.text.template import ChatTemplate, LeftOut, RenderedChat
from pipeline.errors import ModelError


class TextTokenizer:
    """Tokenizes documents for one model: plain texts as they are, chats in a chat template.

    prefix: ids of the special tokens that the tokenizer puts before a text (often BOS, or none);
    they belong before every window. suffix: those behind a text, which a bidirectional model
    reads with it ([SEP]); none for a causal model. special_ids: every special token, ascending.
    serialized: equal for two models that cut all text alike.

    chat: the template for chats (needed if there are any); template_tokens: whether its own
    tokens get a place in the transcript, or none, so that they never pair. Raises ModelError for
    a tokenizer without character offsets.
    """

    def __init__(
        self,
        tokenizer: Any,
        model: str,
        chat: ChatTemplate | None = None,
        template_tokens: Literal["keep", "drop"] = "keep",
        bidirectional: bool = False,
    ) -> None:
        from tokenizers import Tokenizer

        if not getattr(tokenizer, "is_fast", False):
            raise ModelError(
                f"models.{model}: its tokenizer is a {type(tokenizer).__name__}, which is slow and "
                "gives no character offsets; use a model folder that has a tokenizer.json (a fast "
                "tokenizer)"
            )
        backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        backend.post_processor = None
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        self._added = {token.content for token in backend.get_added_tokens_decoder().values()}
        self._chat = chat
        self._keep = template_tokens == "keep"
        self.serialized: str = backend.to_str()
        self.prefix, suffix = _around(tokenizer, model)
        self.suffix = suffix if bidirectional else ()
        self.special_ids = _special_ids(tokenizer, backend)

    def encode(self, documents: Sequence[Document]) -> list[Tokens | LeftOut]:
        """The tokens of each document without prefix and suffix, spans in `document.text`.

        LeftOut stands for a chat that the template cannot put into words or does not keep the
        words of; plain texts are never left out.
        """
        read = [self._read(document) for document in documents]
        texts = [one.text for one in read if not isinstance(one, LeftOut)]
        encodings = iter(self._backend.encode_batch(texts, add_special_tokens=False))
        return [
            one if isinstance(one, LeftOut) else self._tokens(next(encodings), document, one)
            for document, one in zip(documents, read, strict=True)
        ]

    def _read(self, document: Document) -> Document | RenderedChat | LeftOut:
        """What the model is given of a document."""
        if not document.turns:
            return document
        assert self._chat is not None, "chats need a ChatTemplate"
        rendered = self._chat.render(document.turns)
        if isinstance(rendered, LeftOut) or rendered.bos in self._added:
            return rendered
        return rendered.without_bos()  # another model's: this one has a prefix of its own, or none

    def _tokens(self, encoding: Any, document: Document, read: Document | RenderedChat) -> Tokens:
        ids = np.array(encoding.ids, np.int32)
        offsets = chain.from_iterable(encoding.offsets)
        starts, ends = np.fromiter(offsets, np.int32, 2 * len(ids)).reshape(-1, 2).T.copy()
        ends = with_composed(read.text, starts, ends)
        if isinstance(read, Document):
            return Tokens(ids, starts, ends)
        own = len(self.prefix) if tuple(ids[: len(self.prefix)]) == self.prefix else 0
        tokens = Tokens(ids[own:], starts[own:], ends[own:])
        return to_transcript(tokens, read, document.turns, places=self._keep)


def _around(tokenizer: Any, model: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Ids that stand before and behind a text when special tokens are asked for."""
    text = "a"
    plain = tokenizer(text, add_special_tokens=False)["input_ids"]
    full = tokenizer(text, add_special_tokens=True)["input_ids"]
    for start in range(len(full) - len(plain) + 1):
        if full[start : start + len(plain)] == plain:
            return tuple(full[:start]), tuple(full[start + len(plain) :])
    raise ModelError(
        f"models.{model}: its tokenizer changes the text's own tokens when it adds special "
        f"tokens ({plain} becomes {full}); such a tokenizer is not supported"
    )


def _special_ids(tokenizer: Any, backend: Any) -> Int64[np.ndarray, " specials"]:
    added = backend.get_added_tokens_decoder().items()
    marked = {index for index, token in added if token.special}
    return np.array(sorted({*tokenizer.all_special_ids, *marked}), np.int64)
