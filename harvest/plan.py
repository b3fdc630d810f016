"""What a block of documents asks of each model: its windows, and which positions become rows.

Pure but for the tokenizers. Costs the tokenization (about 0.5M tokens/s) and a few integers per
token; it runs ahead of the forward passes in a thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int32, Int64

from harvest.align import Pairing, Tokens, pair
from harvest.corpus import Document
from harvest.tokens import TextTokenizer
from harvest.windows import cut_windows


@dataclass(frozen=True)
class ModelPlan:
    """One model's share of a block.

    ids: all text tokens of the block, document after document; window w holds the tokens
    [window_start[w], window_stop[w]) and gives the rows [window_row[w], window_row[w + 1]);
    row_token: index into ids of each row, ascending. Windows without rows are left out.
    """

    prefix: tuple[int, ...]
    ids: Int32[np.ndarray, " tokens"]
    window_start: Int64[np.ndarray, " windows"]
    window_stop: Int64[np.ndarray, " windows"]
    window_row: Int64[np.ndarray, " edges"]
    row_token: Int64[np.ndarray, " rows"]


@dataclass(frozen=True)
class BlockPlan:
    """A block of documents with its row columns and one ModelPlan per model."""

    documents: list[Document]
    document: Int32[np.ndarray, " rows"]
    char_start: Int32[np.ndarray, " rows"]
    char_end: Int32[np.ndarray, " rows"]
    models: tuple[ModelPlan, ...]

    @property
    def rows(self) -> int:
        """Aligned positions of the block."""
        return len(self.document)


def plan_block(
    documents: list[Document], tokenizers: Sequence[TextTokenizer], max_tokens: Sequence[int]
) -> BlockPlan:
    """Tokenizes, aligns and cuts windows; max_tokens per model counts its special prefix too."""
    texts = [document.text for document in documents]
    per_model = [tokenizer.encode(texts) for tokenizer in tokenizers]
    same = len({tokenizer.serialized for tokenizer in tokenizers}) == 1
    per_document = list(zip(*per_model, strict=True))
    pairings = [pair(tokens, same_tokenizer=same) for tokens in per_document]
    budgets = [
        most - len(tokenizer.prefix) for most, tokenizer in zip(max_tokens, tokenizers, strict=True)
    ]
    edges = [
        cut_windows([len(one) for one in tokens], pairing.positions, budgets)
        for tokens, pairing in zip(per_document, pairings, strict=True)
    ]
    sizes = [len(pairing) for pairing in pairings]
    return BlockPlan(
        documents=documents,
        document=np.repeat(np.arange(len(documents), dtype=np.int32), sizes),
        char_start=_joined([pairing.char_start for pairing in pairings], np.int32),
        char_end=_joined([pairing.char_end for pairing in pairings], np.int32),
        models=tuple(
            _model_plan(tokenizer.prefix, tokens, pairings, edges, model)
            for model, (tokenizer, tokens) in enumerate(zip(tokenizers, per_model, strict=True))
        ),
    )


def _model_plan(
    prefix: tuple[int, ...],
    tokens: list[Tokens],
    pairings: list[Pairing],
    edges: list[np.ndarray],
    model: int,
) -> ModelPlan:
    """Moves one model's windows and positions from documents to the whole block."""
    firsts = np.cumsum([0, *(len(one) for one in tokens)])[:-1]
    shifted = list(zip(firsts, pairings, edges, strict=True))
    start = _joined([first + edge[:-1, model] for first, _, edge in shifted], np.int64)
    stop = _joined([first + edge[1:, model] for first, _, edge in shifted], np.int64)
    row_token = _joined([first + found.positions[model] for first, found, _ in shifted], np.int64)
    rows_before = np.searchsorted(row_token, np.append(start, len(row_token) and stop[-1]))
    used = np.flatnonzero(np.searchsorted(row_token, stop) > rows_before[:-1])
    return ModelPlan(
        prefix=prefix,
        ids=_joined([one.ids for one in tokens], np.int32),
        window_start=start[used],
        window_stop=stop[used],
        window_row=np.append(rows_before[used], len(row_token)),
        row_token=row_token,
    )


def _joined(pieces: list[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate([np.zeros(0, dtype), *pieces]).astype(dtype, copy=False)
