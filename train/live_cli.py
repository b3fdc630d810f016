"""`train run --live`: the one place where train meets harvest, at the command line's edge."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.command import console, next_command
from pipeline.config import Config
from pipeline.errors import ConfigError
from train.config import TrainConfig

if TYPE_CHECKING:  # importing torch would make --help slow
    from harvest.live.source import LiveOptions, LiveRows
    from harvest.settings import Settings
    from train.plan import TrainPlan

SAYS_EVERY = 10  # seconds


def check(config: Config) -> None:
    """Validates everything that a live run reads, and looks for its files. Raises their errors."""
    _settings(config)


@contextmanager
def rows(config: Config, section: TrainConfig) -> Iterator[LiveRows]:
    """The rows of a live run: loads the models; what they read is said until there is a buffer.

    Raises ConfigError if they would not fit into this machine's memory.
    """
    from transformers.utils import logging

    from harvest.live.corpus import open_live
    from train.device import memory_bytes

    logging.disable_progress_bar()
    with open_live(_settings(config), _options(section), _say_now_and_then()) as source:
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

    Harvest and training are added up: on one device they take turns.
    """
    from harvest.live.source import live_bytes
    from train.plan import plan as plan_steps

    small = section.model_copy(
        update={"live_buffer_rows": 2 * section.batch_rows, "validation_rows": 1}
    )
    with rows(config, small) as source:
        begin = time.perf_counter()
        source.first_batch()
        seconds_per_row = (time.perf_counter() - begin) / source.rows_read
        expected = plan_steps(source, small, folder)
        trained = expected.rows_trained / (1 - section.validation_fraction)
        return replace(
            expected,
            seconds=expected.seconds + trained * seconds_per_row,
            shuffle_bytes=live_bytes(source.hookpoints, _options(section)),
        )


def what_next(file: Path | None, overrides: list[str] | None, out: Path | None) -> str:
    """How to analyze a dictionary that has no store."""
    harvest = next_command("harvest run", file, [*(overrides or []), "harvest.rows=1000000"])
    places = {} if out is None else {"dictionary": out, "out": out.parent}
    analyze = next_command("analyze report", file, overrides, **places)
    return (
        "next: analysis reads a store, for which a part of the corpus is enough:\n"
        f"{harvest}\n{analyze}"
    )


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
