"""How many documents, tokens and rows a harvest will have, from a sample of its corpus.

Each source is scaled by its own number of documents, since one that ends early would otherwise be
taken to go on to the end. Exact for a corpus that the sample holds whole.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from harvest.corpus.blocks import DocumentBlock, read_blocks
from harvest.corpus.reader import count_documents
from harvest.plan import BlockPlan
from harvest.settings import Settings
from pipeline.errors import CorpusError
from pipeline.specs import CorpusSpec
from store.block import encode_text

SAMPLE_DOCUMENTS = 256
SAMPLE_CHARACTERS = 2_000_000


@dataclass(frozen=True)
class Forecast:
    """What the whole store will hold; tokens per model."""

    documents: int
    rows: int
    tokens: tuple[int, ...]
    text_bytes: int


def forecast(settings: Settings, plan: BlockPlan, sample: DocumentBlock) -> Forecast | None:
    """None if the corpus does not say how many documents it has, and `harvest.rows` nothing."""
    rows = np.bincount(plan.document, minlength=len(plan.documents))
    times = _times(settings.corpus, sample)
    wanted = settings.harvest.rows
    like = np.ones(len(rows)) if times is None else times
    whole = float(like @ rows)
    if wanted is not None and whole and (times is None or whole > wanted):
        times = like * (wanted / whole)
    if times is None:
        return None
    texts = np.array([len(encode_text(document.text)) for document in plan.documents])
    return Forecast(
        documents=round(float(times.sum())),
        rows=round(float(times @ rows)),
        tokens=tuple(round(float(times @ share.document_tokens)) for share in plan.models),
        text_bytes=round(float(times @ texts)),
    )


def read_sample(corpus: CorpusSpec, characters: int) -> DocumentBlock:
    """The first documents, at least one. Raises CorpusError if there is none."""
    blocks = read_blocks(
        corpus,
        cursor=0,
        state=None,
        task=0,
        of=1,
        seen=(),
        max_documents=SAMPLE_DOCUMENTS,
        max_characters=characters,
    )
    for block in blocks:
        return block
    raise no_documents(corpus)


def no_documents(corpus: CorpusSpec) -> CorpusError:
    """What is to be said of a corpus without documents."""
    paths = ", ".join(str(source.path) for source in corpus.named_sources.values())
    return CorpusError(f"corpus.path: {paths} holds no documents")


def _times(corpus: CorpusSpec, sample: DocumentBlock) -> np.ndarray | None:
    """For how many documents each of the sample stands; None if that is not known."""
    read = Counter(document.source for document in sample.documents)
    counts = {
        name: count_documents(CorpusSpec.model_validate(source.model_dump()))
        for name, source in corpus.named_sources.items()
    }
    fresh = len(sample.documents) / sample.end  # what is there twice is left out
    times = []
    for document in sample.documents:
        count = counts[document.source]
        if count is None:
            return np.ones(len(sample.documents)) if _is_whole(sample) else None
        times.append(fresh * count / read[document.source])
    return np.array(times)


def _is_whole(sample: DocumentBlock) -> bool:
    """Whether the corpus ended before the sample was full."""
    characters = sum(len(document.text) for document in sample.documents)
    return len(sample.documents) < SAMPLE_DOCUMENTS and characters < SAMPLE_CHARACTERS
