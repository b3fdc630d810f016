"""A live run's rows from its settings: the models are loaded, and read the corpus when asked."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from harvest.corpus.blocks import read_blocks
from harvest.fingerprint import fingerprints
from harvest.live.refill import Position, ReadBlocks
from harvest.live.source import LiveOptions, LiveRows
from harvest.models.hooked import HookedModel
from harvest.produce import produce, refuse_non_finite
from harvest.settings import Settings
from harvest.setup import load_models, make_planner
from pipeline.errors import ConfigError
from store.block import Block


def open_live(settings: Settings, options: LiveOptions, on_fill: Callable[[int], None]) -> LiveRows:
    """Loads the models; nothing is read yet. `on_fill` as in LiveRows. Raises their errors."""
    refuse_pipe(settings)
    origin = origin_of(settings)
    models = load_models(settings)
    hookpoints = tuple(hookpoint for model in models for hookpoint in model.hookpoints)
    return LiveRows(hookpoints, corpus_blocks(settings, models), options, origin, on_fill)


def origin_of(settings: Settings) -> dict[str, Any]:
    """What the rows come from, as JSON values; found out without loading a model."""
    prints = fingerprints(settings.models, settings.corpus)
    return {"fingerprints": prints, **settings.recorded()}


def refuse_pipe(settings: Settings) -> None:
    """Raises ConfigError for standard input, which cannot be read again and again."""
    if settings.corpus.piped:
        raise ConfigError(
            "corpus: reads standard input (path -), which comes only once, and a live run reads "
            "its corpus again when it ends; name a file"
        )


def corpus_blocks(settings: Settings, models: list[HookedModel]) -> ReadBlocks:
    """Reads the whole corpus, whatever `harvest.rows` says. Raises CorpusError, ModelError."""
    planner, config = make_planner(settings, models), settings.harvest

    def read(
        position: Position, before_pass: Callable[[], None]
    ) -> Generator[tuple[Block, Position], None, None]:
        documents = read_blocks(
            settings.corpus,
            cursor=position.documents,
            state=position.reader,
            task=0,
            of=1,
            seen=(),
            max_documents=config.block_documents,
            max_characters=config.block_characters,
        )
        for run in produce(models, planner, documents, config, before_pass):
            block = run.block()
            refuse_non_finite(block, run)
            yield block, Position(run.documents.end, run.documents.state)

    return read
