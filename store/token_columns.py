"""Token ids of the models whose caches are imported: found, checked and compared before anything
is written.

Each costs a pass over mapped int64 ids, about 1 s for 100M of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch import Tensor

from pipeline.errors import ModelError, StoreError
from store.cache import Cache
from store.transcript import Decoder

LARGEST_ID = 2**31 - 1
SLICE_ROWS = 1 << 20


def token_columns(caches: Iterable[tuple[str, Cache]]) -> dict[str, Tensor]:
    """Ids (rows,) of each model that has any, of (model, cache) pairs. Raises StoreError.

    The caches of one model must agree.
    """
    found: dict[str, tuple[Cache, Tensor]] = {}
    for model, cache in caches:
        tokens = cache.tokens()
        if tokens is None:
            continue
        if model not in found:
            _refuse_foreign(cache, tokens)
        before, others = found.setdefault(model, (cache, tokens))
        if before.tokens_file != cache.tokens_file and differing(others, tokens):
            raise StoreError(
                f"{before.tokens_file} and {cache.tokens_file} differ, but both are of model "
                f"{model}; tell two models apart with --model NAME once per cache"
            )
    return {model: tokens for model, (_, tokens) in found.items()}


def refuse_unknown(model: str, tokens: Tensor, decoder: Decoder) -> None:
    """Raises ModelError if there are ids that the decoder does not know."""
    for start, piece in _slices(tokens):
        unknown = piece > decoder.largest_id
        if unknown.any():
            row = int(unknown.nonzero()[0])
            raise ModelError(
                f"--tokenizer: {decoder.source}: has ids to {decoder.largest_id}, but model "
                f"{model} has {piece[row]} at row {start + row}; name the tokenizer of {model}"
            )


def differing(a: Tensor, b: Tensor) -> int:
    """How many rows have different ids."""
    return sum(int((piece != b[start : start + SLICE_ROWS]).sum()) for start, piece in _slices(a))


def _refuse_foreign(cache: Cache, tokens: Tensor) -> None:
    for start, piece in _slices(tokens):
        wrong = (piece < 0) | (piece > LARGEST_ID)
        if wrong.any():
            row = int(wrong.nonzero()[0])
            raise StoreError(
                f"{cache.tokens_file}: {piece[row]} at row {start + row} is no token id; copy the "
                f"file again, or set store_tokens to false in {cache.folder / 'config.json'} to go "
                "without"
            )


def _slices(tokens: Tensor) -> Iterator[tuple[int, Tensor]]:
    """(first row, ids) of successive slices: comparing all at once would cost their memory."""
    for start in range(0, len(tokens), SLICE_ROWS):
        yield start, tokens[start : start + SLICE_ROWS]
