"""What a harvest would write and take, from a sample: nothing is written.

Tokenizes the first documents and times one block of a few forward passes per model, so it costs
loading the models and some seconds; the corpus may be more or less dense further on.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from harvest.blocks import cut_blocks
from harvest.corpus import Document, count_documents, read_documents
from harvest.models import HookedModel
from harvest.plan import BlockPlan
from harvest.run import load_models, make_planner, run_block
from harvest.settings import Settings
from pipeline.errors import CorpusError
from store.block import encode_text
from store.layout import activation_layout
from store.schema import CodecName, Hookpoint

SAMPLE_DOCUMENTS = 256
TIMED_CHARACTERS = 32_000


@dataclass(frozen=True)
class Estimate:
    """Expected size and duration; None where the number of documents is not known ahead."""

    store: str
    documents: int | None
    rows: int | None
    bytes: int | None
    seconds: float | None
    free_bytes: int
    rows_per_second: float | None
    paired_fraction: dict[str, float]


def estimate(settings: Settings) -> Estimate:
    """Loads the models, plans a sample of the corpus, times a short pass."""
    sample = list(islice(read_documents(settings.corpus), SAMPLE_DOCUMENTS))
    if not sample:
        raise CorpusError(f"corpus.path: {settings.corpus.path} holds no documents")
    models = load_models(settings)
    plan_documents = make_planner(settings, models)
    plan = plan_documents(sample)
    total = count_documents(settings.corpus)
    if total is None and len(sample) < SAMPLE_DOCUMENTS:
        total = len(sample)
    factor = None if total is None else total / len(sample)
    rate = _rate(models, plan_documents(_prefix(sample)), settings.harvest.batch_tokens)
    size = _bytes(models, plan, settings.store.codec)
    return Estimate(
        store=str(settings.path),
        documents=total,
        rows=None if factor is None else round(factor * plan.rows),
        bytes=None if factor is None else round(factor * size),
        seconds=None if factor is None or rate is None else factor * plan.rows / rate,
        free_bytes=shutil.disk_usage(_nearest_folder(settings.path)).free,
        rows_per_second=rate,
        paired_fraction={
            model.name: plan.rows / max(1, len(share.ids))
            for model, share in zip(models, plan.models, strict=True)
        },
    )


def _prefix(sample: list[Document]) -> list[Document]:
    """The first documents, at least one, until there is text enough to time."""
    return next(cut_blocks(sample, SAMPLE_DOCUMENTS, TIMED_CHARACTERS))


def _rate(models: list[HookedModel], plan: BlockPlan, batch_tokens: int) -> float | None:
    """Rows per second of a short block, after a warm-up; None if it has no rows."""
    run_block(models, plan, batch_tokens)
    start = time.perf_counter()
    run_block(models, plan, batch_tokens)
    return plan.rows / (time.perf_counter() - start) or None


def _bytes(models: list[HookedModel], plan: BlockPlan, codec: CodecName) -> int:
    """Bytes of the plan's activations, row columns and texts; too many if `codec` is lossless."""
    hookpoints = (Hookpoint(m.hookpoint_name, m.name, m.width) for m in models)
    activations = sum(activation_layout(h, 1, codec).chunk_bytes for h in hookpoints)
    columns = 4 * (3 + len(models))
    texts = sum(len(encode_text(document.text)) for document in plan.documents)
    return (activations + columns) * plan.rows + texts


def _nearest_folder(path: Path) -> Path:
    """The folder that exists on the way to `path`."""
    return next(folder for folder in path.absolute().parents if folder.is_dir())
