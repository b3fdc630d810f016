"""How the text goes on, in classes that models with different tokenizers share.

The tokens of one vocabulary are not those of another, but whatever token comes next, the text goes
on with the same characters. A token's class is the first PREFIX characters of its text, without
the white space before them; white space alone is a class of its own. Coarse on purpose: tokenizers
cut words differently, and longer beginnings would tell the cuts apart.

V vocabulary, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from harvest.models.unembed import token_texts

PREFIX = 2


@dataclass(frozen=True)
class NextText:
    """classes: beginnings of texts, sorted; class_of: by model, that of each token it knows."""

    classes: tuple[str, ...]
    class_of: Mapping[str, Int64[Tensor, " V"]]

    def by_class(self, model: str, values_V: Float64[Tensor, " V"]) -> Float64[Tensor, " C"]:
        """Sums over the tokens of each class; what a head has beyond the tokenizer is left out."""
        class_V = self.class_of[model].to(values_V.device)
        known = min(len(class_V), len(values_V))
        sums_C = values_V.new_zeros(len(self.classes))
        return sums_C.index_add_(0, class_V[:known], values_V[:known])


def next_text(tokenizers: Mapping[str, Any]) -> NextText:
    """The classes of some models' tokens. Decodes every token once."""
    begins = {
        model: [beginning(text) for text in token_texts(tokenizer, range(len(tokenizer)))]
        for model, tokenizer in tokenizers.items()
    }
    classes = sorted({begin for found in begins.values() for begin in found})
    number = {begin: place for place, begin in enumerate(classes)}
    class_of = {
        model: torch.tensor([number[begin] for begin in found], dtype=torch.long)
        for model, found in begins.items()
    }
    return NextText(tuple(classes), class_of)


def beginning(text: str) -> str:
    """The class of a token's text."""
    return (text.lstrip() or text)[:PREFIX]
