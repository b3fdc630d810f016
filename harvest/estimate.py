"""What a harvest would write and take, from a sample: nothing is written.

Tokenizes the first documents and times one block of a few forward passes per model, so it costs
loading the models and some seconds; the corpus may be more or less dense further on.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from harvest.batches import padding
from harvest.corpus.blocks import DocumentBlock, read_blocks
from harvest.corpus.reader import count_documents
from harvest.models.hooked import HookedModel
from harvest.plan import BlockPlan, Planner
from harvest.produce import produce
from harvest.settings import Settings
from harvest.setup import load_models, make_planner
from pipeline.errors import CorpusError, StoreError
from pipeline.specs import CorpusSpec
from store.block import Block, encode_text
from store.chunks import encode_chunk, to_numpy
from store.layout import activation_layout
from store.schema import CodecName, Hookpoint

SAMPLE_DOCUMENTS = 256
SAMPLE_CHARACTERS = 2_000_000
TIMED_CHARACTERS = 32_000
CODECS: tuple[CodecName, ...] = get_args(CodecName)


@dataclass(frozen=True)
class Estimate:
    """Expected size and duration; None where the number of documents is not known ahead.

    tokens and paired_fraction by model; hookpoint_bytes by hookpoint and codec (lossless as the
    timed rows compress); bytes: of the configured codec, with row columns and texts;
    padding_fraction: share of the forward passes' positions that are padding; left_out by reason,
    of the sample.
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


def estimate(settings: Settings) -> Estimate:
    """Loads the models, plans a sample of the corpus, times a short pass."""
    if settings.corpus.piped:
        raise CorpusError(
            "corpus.path: -: standard input can be read only once; plan with a file of some of it"
        )
    sample = read_sample(settings.corpus, SAMPLE_CHARACTERS)
    models = load_models(settings)
    planner = make_planner(settings, models)
    plan = planner(sample.documents)
    timed = read_sample(settings.corpus, TIMED_CHARACTERS)
    block, rate = _time(settings, models, planner, timed)
    scale = _scale(settings, plan, sample)
    size = round(_bytes(models, plan, settings.store.codec) * (scale or 0))
    return Estimate(
        store=str(settings.path),
        sample_documents=len(sample.documents),
        documents=_scaled(len(sample.documents), scale),
        tokens=None
        if scale is None
        else {
            m.name: round(int(share.document_tokens.sum()) * scale)
            for m, share in zip(models, plan.models, strict=True)
        },
        rows=_scaled(plan.rows, scale),
        hookpoint_bytes=None
        if scale is None
        else {
            hookpoint.name: {
                codec: round(_row_bytes(hookpoint, codec, block) * plan.rows * scale)
                for codec in CODECS
            }
            for model in models
            for hookpoint in model.hookpoints
        },
        bytes=None if scale is None else size,
        seconds=None if scale is None or rate is None else scale * plan.rows / rate,
        free_bytes=free_bytes(settings.path),
        rows_per_second=rate,
        paired_fraction={
            model.name: plan.rows / max(1, len(share.ids))
            for model, share in zip(models, plan.models, strict=True)
        },
        padding_fraction=padding(
            [share.lengths for share in plan.models], settings.harvest.batch_tokens
        ),
        left_out={**plan.left_out, **{reason: len(d) for reason, d in plan.dropped.items()}},
    )


def refuse_without_room(
    settings: Settings, models: Sequence[HookedModel], planner: Planner, sample: DocumentBlock
) -> None:
    """Raises StoreError if the disk cannot hold what is still to be written, by this sample.

    Counts the whole store, whatever the number of tasks, less what of it is there already.
    """
    plan = planner(sample.documents)
    scale = _scale(settings, plan, sample)
    if scale is None:
        return
    written = sum(file.stat().st_size for file in settings.path.rglob("*") if file.is_file())
    needed = round(_bytes(models, plan, settings.store.codec) * scale) - written
    refuse_too_large(settings.path, needed)


def refuse_too_large(store: Path, needed: int) -> None:
    """Raises StoreError if there is less room than `needed` bytes."""
    free = free_bytes(store)
    if needed > free:
        raise StoreError(
            f"{store}: about {needed / 1e9:,.2f} GB are to be written and {free / 1e9:,.2f} GB are "
            "free; free space, choose another run_dir, a smaller store.codec or harvest.rows"
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


def free_bytes(store: Path) -> int:
    """Room on the disk where the store is, or would be."""
    folder = next(folder for folder in store.absolute().parents if folder.is_dir())
    return shutil.disk_usage(folder).free


def _time(
    settings: Settings, models: list[HookedModel], planner: Planner, sample: DocumentBlock
) -> tuple[Block, float | None]:
    """A short block, and rows per second of it, after a warm-up; None if it has no rows."""
    warm, timed = (produce(models, planner, [sample], settings.harvest) for _ in range(2))
    next(warm).block()
    start = time.perf_counter()
    block = next(timed).block()
    return block, len(block.document) / (time.perf_counter() - start) or None


def _scale(settings: Settings, plan: BlockPlan, sample: DocumentBlock) -> float | None:
    """How many times the sample's documents will be harvested, where that is known ahead."""
    total = count_documents(settings.corpus)
    if total is None and len(sample.documents) < SAMPLE_DOCUMENTS:
        characters = sum(len(document.text) for document in sample.documents)
        total = sample.end if characters < SAMPLE_CHARACTERS else None
    scales = [] if total is None else [total / sample.end]
    if settings.harvest.rows is not None and plan.rows:
        scales.append(settings.harvest.rows / plan.rows)
    return min(scales, default=None)


def _scaled(count: int, scale: float | None) -> int | None:
    return None if scale is None else round(count * scale)


def _bytes(models: Sequence[HookedModel], plan: BlockPlan, codec: CodecName) -> int:
    """Bytes of the plan's activations, row columns and texts; too many if `codec` is lossless."""
    hookpoints = [hookpoint for model in models for hookpoint in model.hookpoints]
    activations = sum(activation_layout(h, 1, codec).chunk_bytes for h in hookpoints)
    columns = 4 * (3 + len(models))
    texts = sum(len(encode_text(document.text)) for document in plan.documents)
    return (activations + columns) * plan.rows + texts


def _row_bytes(hookpoint: Hookpoint, codec: CodecName, block: Block) -> float:
    """Bytes of a row on disk; where that depends on the values, of this block's."""
    rows = len(block.document)
    layout = activation_layout(hookpoint, max(1, rows), codec)
    if codec != "lossless" or not rows:
        return layout.chunk_bytes / layout.rows
    return len(encode_chunk(to_numpy(block.activations[hookpoint.name]), layout)) / rows
