"""What a harvest would write and take, from a sample: nothing is written.

Tokenizes the first documents and times one block of a few forward passes per model, so it costs
loading the models and some seconds; the corpus may be more or less dense further on.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import get_args

from harvest.batches import padding
from harvest.corpus.blocks import DocumentBlock
from harvest.forecast import SAMPLE_CHARACTERS, Forecast, forecast, read_sample
from harvest.models.hooked import HookedModel
from harvest.plan import Planner
from harvest.produce import produce
from harvest.room import free_bytes, store_bytes
from harvest.settings import Settings
from harvest.setup import load_models, make_planner, make_schema
from pipeline.errors import CorpusError
from store.block import Block
from store.chunks import encode_chunk, to_numpy
from store.layout import activation_layout
from store.schema import CodecName, Hookpoint, StoreSchema

TIMED_CHARACTERS = 32_000
CODECS: tuple[CodecName, ...] = get_args(CodecName)


@dataclass(frozen=True)
class Estimate:
    """Expected size and duration; None where the number of documents is not known ahead.

    tokens and paired_fraction by model; hookpoint_bytes: of the rows, by hookpoint and codec
    (lossless as the timed rows compress); bytes: of the whole store with the configured codec, as
    files on the disk; padding_fraction: share of the forward passes' positions that are padding;
    left_out by reason, of the sample.
    """

    store: str
    sample_documents: int
    documents: int | None
    tokens: dict[str, int] | None
    rows: int | None
    hookpoint_bytes: dict[str, dict[CodecName, int]] | None
    bytes: int | None
    seconds: float | None
    free_bytes: int
    rows_per_second: float | None
    paired_fraction: dict[str, float]
    padding_fraction: float
    left_out: dict[str, int]

    @property
    def missing_bytes(self) -> int:
        """Bytes that the disk lacks; 0 where the size is not known ahead."""
        return max(0, (self.bytes or 0) - self.free_bytes)


def estimate(settings: Settings, parts: int = 1) -> Estimate:
    """Loads the models, plans a sample of the corpus, times a short pass."""
    if settings.corpus.piped:
        raise CorpusError(
            "corpus.path: -: standard input can be read only once; plan with a file of some of it"
        )
    sample = read_sample(settings.corpus, SAMPLE_CHARACTERS)
    models = load_models(settings)
    planner = make_planner(settings, models)
    plan = planner(sample.documents)
    found = forecast(settings, plan, sample)
    block, rate = time_block(settings, models, planner)
    schema = make_schema(settings, models, {}, parts)
    names = [model.name for model in models]
    return Estimate(
        store=str(settings.path),
        sample_documents=len(sample.documents),
        documents=found.documents if found else None,
        tokens=dict(zip(names, found.tokens, strict=True)) if found else None,
        rows=found.rows if found else None,
        hookpoint_bytes=_hookpoint_bytes(schema, found, block) if found else None,
        bytes=store_bytes(schema, found, _lossless(schema, block)) if found else None,
        seconds=found.rows / rate if found and rate else None,
        free_bytes=free_bytes(settings.path),
        rows_per_second=rate,
        paired_fraction={
            name: plan.rows / max(1, len(share.ids))
            for name, share in zip(names, plan.models, strict=True)
        },
        padding_fraction=padding(
            [share.lengths for share in plan.models], settings.harvest.batch_tokens
        ),
        left_out={
            **sample.excluded,
            **plan.left_out,
            **{reason: len(documents) for reason, documents in plan.dropped.items()},
        },
    )


def time_block(
    settings: Settings, models: list[HookedModel], planner: Planner
) -> tuple[Block, float | None]:
    """A short block of the corpus, and rows per second of it; None if it has no rows."""
    sample: DocumentBlock = read_sample(settings.corpus, TIMED_CHARACTERS)
    warm, timed = (produce(models, planner, [sample], settings.harvest) for _ in range(2))
    next(warm).block()
    start = time.perf_counter()
    block = next(timed).block()
    return block, len(block.document) / (time.perf_counter() - start) or None


def _hookpoint_bytes(
    schema: StoreSchema, found: Forecast, block: Block
) -> dict[str, dict[CodecName, int]]:
    return {
        hookpoint.name: {
            codec: round(_row_bytes(hookpoint, codec, block) * found.rows) for codec in CODECS
        }
        for hookpoint in schema.hookpoints
    }


def _lossless(schema: StoreSchema, block: Block) -> float:
    """What the lossless codec leaves of the block's activations."""
    sizes = {
        codec: sum(_row_bytes(hookpoint, codec, block) for hookpoint in schema.hookpoints)
        for codec in CODECS
    }
    return sizes["lossless"] / sizes["none"]


def _row_bytes(hookpoint: Hookpoint, codec: CodecName, block: Block) -> float:
    """Bytes of a row on disk; where that depends on the values, of this block's."""
    rows = len(block.document)
    layout = activation_layout(hookpoint, max(1, rows), codec)
    if codec != "lossless" or not rows:
        return layout.chunk_bytes / layout.rows
    return len(encode_chunk(to_numpy(block.activations[hookpoint.name]), layout)) / rows
