"""The alignment of some documents, and its counts by source and label. Loads no weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from harvest.corpus.document import Document
from harvest.text.align import Pairing, Tokens, pair
from harvest.text.tokens import LeftOut, TextTokenizer


@dataclass(frozen=True)
class Aligned:
    """A document with the tokens of every model and their pairing."""

    document: Document
    tokens: tuple[Tokens, ...]
    pairing: Pairing


@dataclass(frozen=True)
class Tally:
    """Counts over the documents of one source and label; tokens per model."""

    source: str
    label: str
    documents: int
    tokens: tuple[int, ...]
    rows: int

    @property
    def paired(self) -> tuple[float, ...]:
        """Share of each model's tokens that are in a row."""
        return tuple(self.rows / count if count else 0.0 for count in self.tokens)


def align_documents(
    documents: Sequence[Document], tokenizers: Sequence[TextTokenizer]
) -> tuple[list[Aligned], dict[str, int]]:
    """The aligned documents, and how many were left out, by reason."""
    same = len({tokenizer.serialized for tokenizer in tokenizers}) == 1
    encoded = zip(*(tokenizer.encode(documents) for tokenizer in tokenizers), strict=True)
    aligned, reasons = [], Counter[str]()
    for document, per_model in zip(documents, encoded, strict=True):
        tokens = tuple(one for one in per_model if not isinstance(one, LeftOut))
        if len(tokens) == len(tokenizers):
            aligned.append(Aligned(document, tokens, pair(tokens, same_tokenizer=same)))
        else:
            reasons[next(one.reason for one in per_model if isinstance(one, LeftOut))] += 1
    return aligned, dict(reasons)


def tally(aligned: Sequence[Aligned]) -> list[Tally]:
    """Counts by source and label, sorted by them; the sum of several is the last one."""
    kinds = sorted({(one.document.source, one.document.label) for one in aligned})
    counted = [
        _count(*kind, [one for one in aligned if (one.document.source, one.document.label) == kind])
        for kind in kinds
    ]
    return [*counted, _count("all", "", aligned)] if len(counted) > 1 else counted


def _count(source: str, label: str, aligned: Sequence[Aligned]) -> Tally:
    return Tally(
        source,
        label,
        documents=len(aligned),
        tokens=tuple(map(sum, zip(*(map(len, one.tokens) for one in aligned), strict=True))),
        rows=sum(len(one.pairing) for one in aligned),
    )
