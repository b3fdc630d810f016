"""`train run --live`: the one place where train meets harvest, at the command line's edge."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.command import console, next_command, note
from pipeline.config import Config
from pipeline.errors import ConfigError
from train.config import TrainConfig

if TYPE_CHECKING:  # importing torch would make --help slow
    from harvest.live.pace import Pace
    from harvest.live.source import LiveOptions, LiveRows
    from harvest.settings import Settings
    from store.schema import Hookpoint
    from train.loop import TrainedDictionary
    from train.plan import TrainPlan

SAYS_EVERY = 10  # seconds
STORE_ROWS = 1_000_000


def refuse_residuals(section: TrainConfig) -> None:
    """Raises ConfigError for dictionaries of residuals, before a model is loaded."""
    from train.recipes.presets import planned

    for plan in planned(section):
        if plan.config.residual:
            raise ConfigError(
                f"train.recipes: {plan.name} is of residuals, whose maps are fitted on rows spread "
                "over a store, and --live has none; run `harvest run` and train on its store, or "
                "use recipe dfc"
            )


def check(config: Config) -> None:
    """Validates everything that a live run reads, and looks for its files. Raises their errors."""
    _settings(config)


@contextmanager
def rows(config: Config, section: TrainConfig) -> Iterator[LiveRows]:
    """The rows of a live run: loads the models; what they read is said until there is a buffer.

    Raises ConfigError if they would not fit into this machine's memory.
    """
    with _open(_settings(config), section) as source:
        yield source


@contextmanager
def _open(settings: Settings, section: TrainConfig) -> Iterator[LiveRows]:
    from transformers.utils import logging

    from harvest.live.corpus import open_live
    from train.device import memory_bytes

    logging.disable_progress_bar()
    with open_live(settings, _options(section), _say_now_and_then()) as source:
        needed, memory = source.memory_bytes, memory_bytes()
        if needed > memory:
            raise ConfigError(
                f"train.live_buffer_rows: {source.buffer_rows:,} rows, and "
                f"{section.validation_rows:,} held-out ones, take {needed / 1e9:,.1f} GB of memory "
                f"and this machine has {memory / 1e9:,.1f} GB; lower it"
            )
        yield source


def plan(config: Config, section: TrainConfig, folder: Path) -> TrainPlan:
    """What a live run would cost: a few steps, on a buffer of two batches filled by the models.

    The harvest is timed by itself, on a short block, and counts all that the run must wait for: the
    first fill of its own buffer too. Harvest and training are added up: on one device they take
    turns.
    """
    from harvest.estimate import TIMED_CHARACTERS
    from harvest.forecast import SAMPLE_DOCUMENTS
    from harvest.live.source import live_bytes
    from train.plan import plan as plan_steps

    small = section.model_copy(
        update={"live_buffer_rows": 2 * section.batch_rows, "validation_rows": 1}
    )
    settings = _settings(config)
    characters = min(settings.harvest.block_characters, TIMED_CHARACTERS)
    short = {"block_documents": SAMPLE_DOCUMENTS, "block_characters": characters}
    harvest = settings.harvest.model_copy(update=short)
    with _open(replace(settings, harvest=harvest), small) as source:
        pace = source.pace()
        expected = plan_steps(source, small, folder)
        needed = _rows_needed(settings, section, source.hookpoints, pace)
        return replace(
            expected,
            seconds=expected.seconds + needed / pace.rows_per_second,
            shuffle_bytes=live_bytes(source.hookpoints, _options(section)),
            harvest_rows=needed,
            harvest_seconds=needed / pace.rows_per_second,
        )


def already_finished(
    config: Config, section: TrainConfig, folder: Path
) -> list[TrainedDictionary] | None:
    """What a run of these very settings that has ended said, and that it has; else None.

    Finds it out without loading a model. Raises the errors of `check`.
    """
    from harvest.live.corpus import origin_of
    from train.dictionary.artifact import read_description
    from train.finished import finished

    settings = _settings(config)
    found = finished(section, folder)
    if found is None:
        return None
    origin = json.loads(json.dumps(origin_of(settings)))
    for entry in found:
        said = read_description(entry.folder).get("live")
        if not isinstance(said, dict) or any(said.get(k) != v for k, v in origin.items()):
            return None
    note(f"{folder} is complete; delete it to train anew")
    return found


def what_next(file: Path | None, overrides: list[str] | None, out: Path | None) -> str:
    """How to analyze a dictionary that has no store."""
    harvest = next_command("harvest run", file, [*(overrides or []), f"harvest.rows={STORE_ROWS}"])
    places = {} if out is None else {"dictionary": out, "out": out.parent}
    analyze = next_command("analyze report", file, overrides, **places)
    return (
        "next: analysis reads a store, for which a part of the corpus is enough, here at most "
        f"{STORE_ROWS:,} rows:\n"
        f"{harvest}\n{analyze}"
    )


def _rows_needed(
    settings: Settings, section: TrainConfig, hookpoints: tuple[Hookpoint, ...], pace: Pace
) -> int:
    """Rows that the models must give, held-out ones included; a small corpus fills no buffer."""
    from harvest.corpus.reader import count_documents
    from harvest.live.shuffle import rows_put
    from harvest.live.source import buffer_rows

    kept = 1 - section.validation_fraction
    buffer, documents = buffer_rows(hookpoints, _options(section)), count_documents(settings.corpus)
    if documents is not None:
        corpus_rows = round(documents * pace.rows_per_document * kept)
        buffer = min(buffer, max(2 * section.batch_rows, corpus_rows))
    return round(rows_put(buffer, section.batch_rows, section.steps) / kept)


def _settings(config: Config) -> Settings:
    from harvest.live.corpus import refuse_pipe
    from harvest.settings import Settings

    settings = Settings.read(config)
    refuse_pipe(settings)
    settings.check_files()
    return settings


def _options(section: TrainConfig) -> LiveOptions:
    from harvest.live.source import LiveOptions
    from train.device import resolve_device

    return LiveOptions(
        batch_rows=section.batch_rows,
        buffer_rows=section.live_buffer_rows,
        seed=section.seed,
        validation_fraction=section.validation_fraction,
        validation_rows=section.validation_rows,
        device=resolve_device(section.device),
    )


def _say_now_and_then() -> Callable[[int], None]:
    """Says how full the buffer is, in lines that a batch job's log can hold too."""
    said = time.monotonic()

    def say(held: int) -> None:
        nonlocal said
        if time.monotonic() - said > SAYS_EVERY:
            said = time.monotonic()
            console.print(f"filling the buffer: {held:,} rows", soft_wrap=True)

    return say
