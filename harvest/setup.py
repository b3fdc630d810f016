"""What a harvest is made of, from its settings: loaded models, a planner, the store's schema."""

from __future__ import annotations

from dataclasses import replace

from rich.markup import escape

from harvest.models.hooked import HookedModel
from harvest.plan import Planner
from harvest.settings import Settings
from harvest.tasks import Task
from harvest.text.template import chat_templates
from harvest.text.tokens import TextTokenizer
from pipeline.command import console
from pipeline.errors import ConfigError, StoreError
from store.layout import default_chunk_rows, default_column_chunks
from store.reader import Store
from store.root import refuse_other_schema
from store.schema import Hookpoint, StoreSchema
from store.writer import PartWriter


def load_models(settings: Settings) -> list[HookedModel]:
    """The models in the order of the configuration."""
    models = []
    for name, spec in settings.models.items():
        with console.status(escape(f"loading model {name} from {spec.path}")):
            models.append(HookedModel(name, spec))
    return models


def make_planner(settings: Settings, models: list[HookedModel]) -> Planner:
    """Plans blocks for these models' tokenizers and contexts. Raises ModelError, ConfigError."""
    chats = any(source.chat_column for source in settings.corpus.named_sources.values())
    templates = {}
    if chats:
        tokenizers = {model.name: model.tokenizer for model in models}
        templates = chat_templates(settings.models, tokenizers)
    most = settings.harvest.max_tokens
    planner = Planner(
        tuple(
            TextTokenizer(
                model.tokenizer,
                model.name,
                chat=templates.get(model.name),
                template_tokens=settings.harvest.template_tokens,
                bidirectional=model.bidirectional,
            )
            for model in models
        ),
        tuple(min(most, model.context or most) for model in models),
        settings.harvest,
    )
    for model, limit, budget in zip(models, planner.contexts, planner.budgets, strict=True):
        if budget < 1:
            raise ConfigError(
                f"harvest.max_tokens: {limit} leaves model {model.name} no room for text beside "
                f"its {limit - budget} special tokens; raise it"
            )
    return planner


def make_schema(
    settings: Settings, models: list[HookedModel], prints: dict[str, str], parts: int
) -> StoreSchema:
    """What a store of these settings is made from; a resumed harvest must have an equal one."""
    hookpoints = tuple(hookpoint for model in models for hookpoint in model.hookpoints)
    chunk_rows = _chunk_rows(settings, hookpoints)
    return StoreSchema(
        hookpoints,
        chunk_rows,
        prints,
        settings.recorded(),
        codec=settings.store.codec,
        parts=parts,
        sources=tuple(settings.corpus.named_sources),
        vocabulary={model.name: model.vocabulary for model in models},
        column_chunks=default_column_chunks(chunk_rows),
    )


def already_complete(settings: Settings, prints: dict[str, str], task: Task) -> bool:
    """Whether this task's part is there and complete, found out without loading a model.

    Raises StoreError if the store was begun with other settings.
    """
    if not (settings.path / "zarr.json").exists():
        return False
    store = Store(settings.path)
    wanted = _wanted(store.schema, settings, prints, task.of)
    refuse_other_schema(settings.path, wanted)
    if store.complete:  # found out without writing: the folder may be read-only
        return True
    with PartWriter(settings.path, wanted, task.index) as writer:
        return writer.complete


def begun_with_others(settings: Settings, store: Store) -> str | None:
    """In what settings a store differs from these, in a line; None if in none.

    The files of models and corpus are not read: that is what a harvest that goes on does.
    """
    schema = store.schema
    try:
        refuse_other_schema(
            store.path, _wanted(schema, settings, schema.fingerprints, schema.parts)
        )
    except StoreError as error:
        return str(error)
    return None


def _wanted(
    schema: StoreSchema, settings: Settings, prints: dict[str, str], parts: int
) -> StoreSchema:
    """What these settings make of a store that was begun, as far as no model needs be loaded."""
    return replace(
        schema,
        chunk_rows=_chunk_rows(settings, schema.hookpoints),
        codec=settings.store.codec,
        fingerprints=prints,
        config=settings.recorded(),
        parts=parts,
        sources=tuple(settings.corpus.named_sources),
    )


def _chunk_rows(settings: Settings, hookpoints: tuple[Hookpoint, ...]) -> int:
    return settings.store.chunk_rows or default_chunk_rows(hookpoints)
