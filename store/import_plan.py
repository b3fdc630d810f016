"""Opens activation caches and decides what their store will hold, before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.errors import StoreError
from store.cache import Cache, open_cache
from store.cache_names import name_caches
from store.config import StoreConfig
from store.importer import ImportPlan
from store.layout import default_chunk_rows, default_column_chunks
from store.schema import Hookpoint, StoreSchema
from store.token_columns import refuse_unknown, token_columns
from store.transcript import Decoder

# A block holds whole documents, so the longest one bounds memory.
LONGEST_DOCUMENT = 1 << 15


def plan_import(
    folders: Sequence[Path],
    config: StoreConfig,
    document_rows: int,
    models: Sequence[str] = (),
    tokenizer: str | None = None,
) -> ImportPlan:
    """Looks through the caches in `folders`. Raises StoreError, or ModelError of the tokenizer.

    document_rows: length of a document where no cache says; models: one name per cache, or none.
    """
    names = name_caches(folders, models)
    caches = [open_cache(folder) for folder in folders]
    _refuse_unaligned(caches)
    decoder = Decoder(tokenizer) if tokenizer is not None else None
    tokens = token_columns(zip((name.model for name in names), caches, strict=True))
    sequences = _shared_ends(caches)
    hookpoints = tuple(
        Hookpoint(name.hookpoint, name.model, cache.width)
        for name, cache in zip(names, caches, strict=True)
    )
    by_name = {name.hookpoint: cache for name, cache in zip(names, caches, strict=True)}
    recorded = {
        "document_rows": document_rows if sequences is None else None,
        "label": names[0].dataset,
        "caches": {name: cache.recorded for name, cache in by_name.items()},
    }
    chunk_rows = config.chunk_rows or default_chunk_rows(hookpoints)
    plan = ImportPlan(
        schema=StoreSchema(
            hookpoints,
            chunk_rows,
            _fingerprints(by_name, decoder),
            {"import": recorded},
            codec=config.codec,
            column_chunks=default_column_chunks(chunk_rows),
        ),
        caches=by_name,
        tokens=tokens,
        ends=_cut(_every(caches[0].rows, document_rows) if sequences is None else sequences),
        sequences=None if sequences is None else len(sequences),
        label=names[0].dataset,
        decoder=decoder,
    )
    if decoder is not None and plan.reference is not None:
        refuse_unknown(plan.reference, tokens[plan.reference], decoder)
    return plan


def _fingerprints(caches: dict[str, Cache], decoder: Decoder | None) -> dict[str, str]:
    found = {f"caches.{name}": cache.fingerprint() for name, cache in caches.items()}
    return found if decoder is None else {**found, "tokenizer": decoder.fingerprint}


def _refuse_unaligned(caches: list[Cache]) -> None:
    first = caches[0]
    for cache in caches[1:]:
        if cache.rows != first.rows:
            raise StoreError(
                f"{first.folder} has {first.rows} rows, {cache.folder} has {cache.rows}: row by "
                "row they do not belong together; collect both to the end from the same data"
            )
        for one in (first, cache):
            if one.shuffled:
                raise StoreError(
                    f"{one.folder}: shuffle_shards is set in config.json: each hookpoint's rows "
                    "lie in an order of their own and cannot be paired; import it alone, or "
                    "collect again without shuffling"
                )


def _shared_ends(caches: list[Cache]) -> np.ndarray | None:
    """Row behind the last of each sequence; None if no cache knows. They must not contradict."""
    known: tuple[Cache, np.ndarray] | None = None
    for cache in caches:
        ends = cache.sequence_ends()
        if ends is None:
            continue
        if known is not None and not np.array_equal(known[1], ends):
            raise StoreError(
                f"{known[0].ranges_file} and {cache.ranges_file} differ: row by row the caches do "
                "not belong together; collect both from the same data"
            )
        known = known or (cache, ends)
    return None if known is None else known[1]


def _every(rows: int, document_rows: int) -> np.ndarray:
    """Ends of documents of `document_rows` rows; the last one may be shorter."""
    return np.minimum(np.arange(1, -(-rows // document_rows) + 1) * document_rows, rows)


def _cut(ends: np.ndarray) -> np.ndarray:
    """Ends of documents after those longer than LONGEST_DOCUMENT have been cut."""
    starts = np.append(0, ends[:-1])
    pieces = np.maximum(1, -(-(ends - starts) // LONGEST_DOCUMENT))
    number = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    cut = np.repeat(starts, pieces) + (number + 1) * LONGEST_DOCUMENT
    return np.minimum(cut, np.repeat(ends, pieces))
