"""How the text goes on, in classes that models with different tokenizers share.

The tokens of one vocabulary are not those of another, but whatever token comes next, the text goes
on with the same characters. A token's class is the first PREFIX characters of its text, without
the white space before them; white space alone is a class of its own. Coarse on purpose: tokenizers
cut words differently, and longer beginnings would tell the cuts apart. Special tokens, and bytes
that are no character by themselves, have no class: no text that both models read begins so.

V vocabulary, C classes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from harvest.models.unembed import token_texts

PREFIX = 2
NONE = -1
BYTE = re.compile(r"^<0x[0-9A-F]{2}>$")


@dataclass(frozen=True)
class NextText:
    """classes: beginnings of texts, sorted; class_of: by model, that of each token id, or NONE."""

    classes: tuple[str, ...]
    class_of: Mapping[str, Int64[Tensor, " V"]]

    def by_class(self, model: str, values_V: Float64[Tensor, " V"]) -> Float64[Tensor, " C"]:
        """Sums over the tokens of each class; tokens without one, and unknown ids, are left out."""
        class_V = self.class_of[model].to(values_V.device)
        known = min(len(class_V), len(values_V))
        sums_C = values_V.new_zeros(len(self.classes) + 1)  # the last is NONE's
        return sums_C.index_add_(0, class_V[:known] % len(sums_C), values_V[:known])[:-1]


def next_text(tokenizers: Mapping[str, Any]) -> NextText:
    """The classes of some models' tokens. Decodes every token once."""
    begins = {model: _beginnings(tokenizer) for model, tokenizer in tokenizers.items()}
    classes = sorted({begin for found in begins.values() for begin in found.values()})
    number = {begin: place for place, begin in enumerate(classes)}
    class_of = {}
    for model, found in begins.items():
        class_of[model] = torch.full((max(found, default=-1) + 1,), NONE, dtype=torch.long)
        class_of[model][list(found)] = torch.tensor([number[begin] for begin in found.values()])
    return NextText(tuple(classes), class_of)


def _beginnings(tokenizer: Any) -> dict[int, str]:
    """Of each token that stands for text, by its id."""
    special = set(tokenizer.all_special_ids)
    tokens = sorted(set(tokenizer.get_vocab().values()) - special)
    texts = token_texts(tokenizer, tokens)
    named = zip(tokens, texts, strict=True)
    return {token: beginning(text) for token, text in named if not BYTE.match(text)}


def beginning(text: str) -> str:
    """The class of a token's text."""
    return (text.lstrip() or text)[:PREFIX]
