"""What a block of documents asks of each model: its windows, and which positions become rows.

Pure but for the tokenizers. Costs the tokenization and a few integers per token.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int32, Int64

from harvest.config import HarvestConfig
from harvest.corpus.document import Document
from harvest.text.align import Pairing, Tokens, pair, stretches
from harvest.text.tokens import LeftOut, TextTokenizer
from harvest.windows import cut_windows

FIRST = "rows among the first positions"
SPECIAL = "rows of special tokens"


@dataclass(frozen=True)
class ModelPlan:
    """One model's share of a block.

    ids: all text tokens of the block, document after document; window w holds the tokens
    [window_start[w], window_stop[w]) between prefix and suffix and gives the rows
    [window_row[w], window_row[w + 1]); row r stands for the tokens [row_first[r], row_token[r]] of
    its window, row_token ascending. Windows without rows are left out.
    """

    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    ids: Int32[np.ndarray, " tokens"]
    window_start: Int64[np.ndarray, " windows"]
    window_stop: Int64[np.ndarray, " windows"]
    window_row: Int64[np.ndarray, " edges"]
    row_first: Int64[np.ndarray, " rows"]
    row_token: Int64[np.ndarray, " rows"]
    document_tokens: Int64[np.ndarray, " documents"]

    @property
    def lengths(self) -> Int64[np.ndarray, " windows"]:
        """Tokens of each window in its forward pass, prefix and suffix included."""
        return self.window_stop - self.window_start + len(self.prefix) + len(self.suffix)


@dataclass(frozen=True)
class BlockPlan:
    """Documents with their row columns and one ModelPlan per model; what was left out, by reason.

    dropped: for each reason, the document of every row that it took.
    """

    documents: list[Document]
    document: Int32[np.ndarray, " rows"]
    char_start: Int32[np.ndarray, " rows"]
    char_end: Int32[np.ndarray, " rows"]
    models: tuple[ModelPlan, ...]
    left_out: dict[str, int]
    dropped: dict[str, Int32[np.ndarray, " dropped"]]

    @property
    def rows(self) -> int:
        """Aligned positions of the block."""
        return len(self.document)


@dataclass(frozen=True)
class Planner:
    """Plans blocks for some models; `contexts` are the most tokens of a pass, specials included."""

    tokenizers: tuple[TextTokenizer, ...]
    contexts: tuple[int, ...]
    config: HarvestConfig

    def __call__(self, documents: list[Document]) -> BlockPlan:
        """Tokenizes, aligns, cuts windows, and drops rows that are not wanted."""
        same = len({tokenizer.serialized for tokenizer in self.tokenizers}) == 1
        per_model, left_out = _encode(documents, self.tokenizers, same)
        per_document = list(zip(*per_model, strict=True))
        pairings = [pair(tokens, same_tokenizer=same) for tokens in per_document]
        edges = [
            cut_windows([len(one) for one in tokens], pairing.positions, self.budgets)
            for tokens, pairing in zip(per_document, pairings, strict=True)
        ]
        firsts = [pairing.positions for pairing in pairings]
        if self.config.pair == "mean":
            firsts = list(map(stretches, per_document, pairings))
        shares = [
            _ModelShare.of(tokenizer, model, per_document, pairings, firsts, edges)
            for model, tokenizer in enumerate(self.tokenizers)
        ]
        document = np.repeat(
            np.arange(len(documents), dtype=np.int32), [len(pairing) for pairing in pairings]
        )
        keep, dropped = self._choose(shares, document)
        return BlockPlan(
            documents=documents,
            document=document[keep],
            char_start=_joined([pairing.char_start for pairing in pairings], np.int32)[keep],
            char_end=_joined([pairing.char_end for pairing in pairings], np.int32)[keep],
            models=tuple(share.plan(keep) for share in shares),
            left_out=left_out,
            dropped=dropped,
        )

    @property
    def budgets(self) -> list[int]:
        """Most text tokens of a window, per model."""
        pairs = zip(self.contexts, self.tokenizers, strict=True)
        return [most - len(one.prefix) - len(one.suffix) for most, one in pairs]

    def _choose(
        self, shares: list[_ModelShare], document: np.ndarray
    ) -> tuple[Bool[np.ndarray, " rows"], dict[str, np.ndarray]]:
        """Which rows stay, and the documents of the others by reason; the first reason counts."""
        keep = np.ones(len(document), bool)
        dropped = {}
        reasons = {}
        if self.config.skip_first:
            reasons[FIRST] = [share.place() < self.config.skip_first for share in shares]
        if self.config.skip_special:
            reasons[SPECIAL] = [share.special() for share in shares]
        for reason, per_model in reasons.items():
            taken = np.logical_or.reduce(per_model) & keep
            dropped[reason] = document[taken]
            keep &= ~taken
        return keep, dropped


@dataclass(frozen=True)
class _ModelShare:
    """One model's windows and pairs, of the whole block, before any row is dropped."""

    tokenizer: TextTokenizer
    ids: np.ndarray
    window_start: np.ndarray
    window_stop: np.ndarray
    row_first: np.ndarray
    row_token: np.ndarray
    document_tokens: np.ndarray

    @classmethod
    def of(
        cls,
        tokenizer: TextTokenizer,
        model: int,
        documents: list[tuple[Tokens, ...]],
        pairings: list[Pairing],
        firsts: list[tuple[np.ndarray, ...]],
        edges: list[np.ndarray],
    ) -> _ModelShare:
        """Moves one model's windows and positions from documents to the whole block."""
        sizes = np.array([len(tokens[model]) for tokens in documents], np.int64)
        before = np.cumsum(sizes) - sizes
        start = _shifted(before, [edge[:-1, model] for edge in edges])
        token = _shifted(before, [pairing.positions[model] for pairing in pairings])
        window = np.searchsorted(start, token, side="right") - 1
        return cls(
            tokenizer=tokenizer,
            ids=_joined([tokens[model].ids for tokens in documents], np.int32),
            window_start=start,
            window_stop=_shifted(before, [edge[1:, model] for edge in edges]),
            # A stretch without pairs that is longer than a window began in a pass before.
            row_first=np.maximum(
                _shifted(before, [first[model] for first in firsts]), start[window]
            ),
            row_token=token,
            document_tokens=sizes,
        )

    def place(self) -> Int64[np.ndarray, " rows"]:
        """Position in its forward pass of the first token that each row is of."""
        window = np.searchsorted(self.window_start, self.row_first, side="right") - 1
        return self.row_first - self.window_start[window] + len(self.tokenizer.prefix)

    def special(self) -> Bool[np.ndarray, " rows"]:
        """Which rows' tokens are special ones."""
        return np.isin(self.ids[self.row_token], self.tokenizer.special_ids)

    def plan(self, keep: Bool[np.ndarray, " rows"]) -> ModelPlan:
        """The share with some rows, and the windows that hold them."""
        token = self.row_token[keep]
        row = np.searchsorted(token, self.window_start)
        used = np.flatnonzero(np.searchsorted(token, self.window_stop) > row)
        return ModelPlan(
            prefix=self.tokenizer.prefix,
            suffix=self.tokenizer.suffix,
            ids=self.ids,
            window_start=self.window_start[used],
            window_stop=self.window_stop[used],
            window_row=np.append(row[used], len(token)),
            row_first=self.row_first[keep],
            row_token=token,
            document_tokens=self.document_tokens,
        )


def _encode(
    documents: list[Document], tokenizers: Sequence[TextTokenizer], same: bool
) -> tuple[list[list[Tokens]], dict[str, int]]:
    """The documents' tokens per model, and how many one of the models cannot read.

    Those have no tokens. They stay, so that the store knows all texts that were there before.
    """
    if same and not any(document.turns for document in documents):  # chats differ by template
        per_model = [tokenizers[0].encode(documents)] * len(tokenizers)
    else:
        per_model = [tokenizer.encode(documents) for tokenizer in tokenizers]
    refused = [
        next((tokens.reason for tokens in found if isinstance(tokens, LeftOut)), None)
        for found in zip(*per_model, strict=True)
    ]
    none = np.zeros(0, np.int32)
    readable = [
        [
            Tokens(none, none, none) if reason or isinstance(one, LeftOut) else one
            for one, reason in zip(tokens, refused, strict=True)
        ]
        for tokens in per_model
    ]
    return readable, dict(Counter(reason for reason in refused if reason is not None))


def _shifted(before: np.ndarray, pieces: list[np.ndarray]) -> Int64[np.ndarray, " values"]:
    """Token positions within documents as positions within the block."""
    return _joined([first + piece for first, piece in zip(before, pieces, strict=True)], np.int64)


def _joined(pieces: list[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate([np.zeros(0, dtype), *pieces]).astype(dtype, copy=False)
