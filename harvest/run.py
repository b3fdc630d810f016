"""Reads the corpus with every model and writes the aligned rows to the store, block by block.

While the models run one block, the next is planned and the last ones are written. Killed at any
instant and run again, it ends with byte-for-byte the store of an undisturbed run on the same
machine. Memory: a few blocks of activations (see harvest.block_characters).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from rich.markup import escape

from harvest.background import Background, ahead
from harvest.blocks import cut_blocks
from harvest.corpus import Document, count_documents, read_documents
from harvest.fingerprint import fingerprints
from harvest.forward import row_activations
from harvest.models import HookedModel
from harvest.plan import BlockPlan, plan_block
from harvest.settings import Settings
from harvest.tokens import TextTokenizer
from pipeline.command import console, progress_bar
from pipeline.errors import ConfigError, CorpusError, ModelError, StoreError
from store.block import Block
from store.files import make_folder
from store.layout import default_chunk_rows, default_column_chunks
from store.reader import Store
from store.root import refuse_other_schema
from store.schema import Hookpoint, StoreSchema
from store.writer import PartWriter


@dataclass(frozen=True)
class HarvestSummary:
    """What the store holds now, and how fast this run was (None if it had nothing to do)."""

    store: str
    rows: int
    documents: int
    bytes: int
    paired_fraction: dict[str, float]
    rows_per_second: float | None


def harvest(settings: Settings) -> HarvestSummary:
    """Begins, continues or finds complete the store at `settings.path`."""
    _make_parent(settings.path)
    prints = fingerprints(settings.models, settings.corpus)
    if not _already_complete(settings, prints):
        # Before minutes are spent on loading weights.
        if next(read_documents(settings.corpus), None) is None:
            raise CorpusError(f"corpus.path: {settings.corpus.path} holds no documents")
        models = load_models(settings)
        schema = make_schema(settings, models, prints)
        with PartWriter(settings.path, schema, commit_rows=schema.chunk_rows) as writer:
            before, start = writer.rows, time.perf_counter()
            _write_blocks(settings, models, writer)
            rate = (writer.rows - before) / (time.perf_counter() - start)
        return summarize(settings.path, rate)
    return summarize(settings.path, None)


def load_models(settings: Settings) -> list[HookedModel]:
    """The models in the order of the configuration."""
    models = []
    for name, spec in settings.models.items():
        with console.status(escape(f"loading model {name} from {spec.path}")):
            models.append(HookedModel(name, spec))
    return models


def make_schema(
    settings: Settings, models: list[HookedModel], prints: dict[str, str]
) -> StoreSchema:
    """What a store of these settings is made from; a resumed harvest must have an equal one."""
    hookpoints = tuple(Hookpoint(m.hookpoint_name, m.name, m.width) for m in models)
    chunk_rows = _chunk_rows(settings, hookpoints)
    return StoreSchema(
        hookpoints,
        chunk_rows,
        prints,
        settings.recorded(),
        codec=settings.store.codec,
        vocabulary={model.name: model.vocabulary for model in models},
        column_chunks=default_column_chunks(chunk_rows),
    )


def _chunk_rows(settings: Settings, hookpoints: tuple[Hookpoint, ...]) -> int:
    return settings.store.chunk_rows or default_chunk_rows(hookpoints)


def make_planner(
    settings: Settings, models: list[HookedModel]
) -> Callable[[list[Document]], BlockPlan]:
    """Plans blocks for these models' tokenizers and contexts. Raises ModelError, ConfigError."""
    tokenizers = [TextTokenizer(model.tokenizer, model.name) for model in models]
    most = settings.harvest.max_tokens
    limits = [min(most, model.context or most) for model in models]
    for model, tokenizer, limit in zip(models, tokenizers, limits, strict=True):
        if limit <= len(tokenizer.prefix):
            raise ConfigError(
                f"harvest.max_tokens: {limit} leaves model {model.name} no room for text beside "
                f"its {len(tokenizer.prefix)} special tokens; raise it"
            )
    return partial(plan_block, tokenizers=tokenizers, max_tokens=limits)


def run_block(models: list[HookedModel], plan: BlockPlan, batch_tokens: int) -> Block:
    """Runs every model over a block."""
    return Block(
        texts=[document.text for document in plan.documents],
        labels=[document.label for document in plan.documents],
        activations={
            model.hookpoint_name: row_activations(model, share, batch_tokens)
            for model, share in zip(models, plan.models, strict=True)
        },
        document=plan.document,
        char_start=plan.char_start,
        char_end=plan.char_end,
        tokens={
            model.name: share.ids[share.row_token]
            for model, share in zip(models, plan.models, strict=True)
        },
        tokens_read={m.name: len(share.ids) for m, share in zip(models, plan.models, strict=True)},
        tokens_paired={model.name: plan.rows for model in models},
    )


def summarize(path: Path, rate: float | None) -> HarvestSummary:
    """Reads the summary from the store itself."""
    store = Store(path)
    return HarvestSummary(
        store=str(path),
        rows=store.rows,
        documents=len(store.documents),
        bytes=sum(file.stat().st_size for file in path.rglob("*") if file.is_file()),
        paired_fraction={name: store.paired_fraction(name) for name in store.schema.models},
        rows_per_second=rate,
    )


def _write_blocks(settings: Settings, models: list[HookedModel], writer: PartWriter) -> None:
    """Appends every block behind the writer's cursor, which counts documents."""
    done = writer.cursor
    total = count_documents(settings.corpus)
    rows = writer.rows
    blocks = cut_blocks(
        read_documents(settings.corpus, done),
        settings.harvest.block_documents,
        settings.harvest.block_characters,
    )
    with progress_bar("rows") as bar, Background(partial(_append, writer)) as background:
        task = bar.add_task("harvest", total=None, completed=rows, note="")
        for plan in ahead(map(make_planner(settings, models), blocks)):
            block = run_block(models, plan, settings.harvest.batch_tokens)
            background.put((done, block))
            done += len(plan.documents)
            rows += plan.rows
            expected = None if total is None else round(rows * total / done)
            note = f"document {done:,}" + (f" of {total:,}" if total else "")
            # Not through update(): a changed total would make it forget the speed so far.
            bar.tasks[0].total = expected
            bar.update(task, completed=rows, note=note)
        bar.tasks[0].total = rows
    writer.finish()


def _append(writer: PartWriter, item: tuple[int, Block]) -> None:
    first_document, block = item
    _refuse_non_finite(block, first_document)
    writer.append(block, first_document + len(block.texts))


def _refuse_non_finite(block: Block, first_document: int) -> None:
    for hookpoint, rows in block.activations.items():
        if not rows.isfinite().all():
            bad = int((~rows.isfinite().all(1)).nonzero()[0])
            raise ModelError(
                f"{hookpoint}: activation is not finite in document "
                f"{first_document + int(block.document[bad])} at character "
                f"{int(block.char_end[bad])}; give the model dtype bfloat16 or float32"
            )


def _already_complete(settings: Settings, prints: dict[str, str]) -> bool:
    """Whether the store is there and complete, found out without loading a model.

    Raises StoreError if it was begun with other settings.
    """
    if not (settings.path / "zarr.json").exists():
        return False
    store = Store(settings.path)
    wanted = replace(
        store.schema,
        chunk_rows=_chunk_rows(settings, store.schema.hookpoints),
        codec=settings.store.codec,
        fingerprints=prints,
        config=settings.recorded(),
    )
    refuse_other_schema(settings.path, wanted)
    if store.complete:  # found out without writing: the folder may be read-only
        return True
    with PartWriter(settings.path, wanted) as writer:
        return writer.complete


def _make_parent(store: Path) -> None:
    """Creates the folder of the store, before minutes are spent on loading weights."""
    try:
        make_folder(store.parent)
    except OSError as error:
        raise StoreError(
            f"{store.parent}: cannot be created ({error.strerror}); choose another run_dir"
        ) from None
