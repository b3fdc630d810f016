"""What the commands of `analyze` share: options, the subject, the sweep, tables on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from analyze.config import AnalyzeConfig, check_models
from pipeline.command import progress_bar, read_config
from pipeline.config import Config
from pipeline.time_limit import stops_in_time
from train.interrupt import sigterm_raises

if TYPE_CHECKING:
    from analyze.subject import Subject
    from analyze.sweep.accumulator import Accumulator
    from analyze.sweep.saved import Share
    from analyze.tables import Tables
    from store.reader import Store

SWEEP = "sweep"  # folder of the accumulators, beside the tables

DictionaryOption = Annotated[
    Path | None,
    typer.Option(
        "--dictionary", help="The dictionary (default: RUN_DIR/dictionary of the config)."
    ),
]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", help="Folder for tables (default: RUN_DIR/analysis of the config)."),
]


@contextmanager
def orderly() -> Iterator[None]:
    """For what may take hours: SIGTERM, and Slurm's time limit, end it as Ctrl-C does.

    What was summed up a minute before, and a null's checkpoint, are gone on with.
    """
    with sigterm_raises(), stops_in_time():
        yield


def read_settings(file: Path | None, overrides: list[str] | None) -> tuple[Config, AnalyzeConfig]:
    """Validates the section, and what it says of the configuration's models."""
    settings = read_config(file, overrides)
    section = settings.section("analyze", AnalyzeConfig)
    if settings.raw.get("models"):
        check_models(section.planted, settings.models)
    return settings, section


def open_store(path: Path, section: AnalyzeConfig) -> Store:
    """The store. Raises StoreError if it is not complete, unless the configuration allows that."""
    from store.completeness import require_complete
    from store.reader import Store

    store = Store(path)
    require_complete(store, section.incomplete_store, "analyze.incomplete_store")
    return store


@contextmanager
def bar_when_needed(unit: str, title: str, total: int) -> Iterator[Callable[..., None]]:
    """Yields what updates a progress bar (advance, completed, note).

    The bar appears with the first update that leaves something to wait for: what is known already
    shows none.
    """
    bar = progress_bar(unit)
    task = bar.add_task(escape(title), total=total, note="")

    def update(**change: Any) -> None:
        bar.update(task, **change)
        if not bar.finished:
            bar.start()

    try:
        yield update
    finally:
        if bar.live.is_started:
            bar.stop()


@dataclass(frozen=True)
class Opened:
    """What a command works on: the subject, and the folder that its tables go to."""

    subject: Subject
    section: AnalyzeConfig
    out: Path

    @property
    def tables(self) -> Tables:
        """The tables of this subject."""
        from analyze.tables import Tables

        return Tables(self.out, self.subject.fingerprint)

    def sweep(self, accumulators: Sequence[Accumulator], share: Share | None = None) -> None:
        """Fills accumulators with all rows, from disk or by one pass, under a progress bar."""
        self.sweep_into(self.subject, accumulators, self.out / SWEEP, share)

    def sweep_into(
        self,
        subject: Subject,
        accumulators: Sequence[Accumulator],
        folder: Path,
        share: Share | None = None,
    ) -> None:
        """The same for another subject, whose sums are kept in `folder`."""
        from analyze.sweep.gather import gather
        from analyze.sweep.saved import Share

        share = share or Share()
        chunks = share.chunks(subject.store.chunks)
        rows = int(subject.store.chunk_sizes[chunks.start : chunks.stop].sum())
        with bar_when_needed("rows", f"sweep {subject.folder.name}", rows) as update:
            gather(
                subject,
                accumulators,
                self.section.batch_rows,
                folder,
                lambda rows: update(advance=rows),
                share,
            )


def open_all(
    settings: Config,
    section: AnalyzeConfig,
    store: Path | None,
    dictionary: Path | None,
    out: Path | None,
) -> Opened:
    """The store, the dictionary and the folder that the options name, or the configuration."""
    from analyze.subject import open_subject

    opened = open_store(store or settings.store_path, section)
    subject = open_subject(opened, dictionary or settings.dictionary_path, section.device)
    return Opened(subject, section, out or settings.analysis_path)


def rows_table(rows: list[dict[str, Any]], title: str) -> Table:
    """A table for the terminal; `rows` must not be empty."""
    table = Table(*(escape(name) for name in rows[0]), title=title, title_justify="left")
    for row in rows:
        table.add_row(*(escape(word(value)) for value in row.values()))
    return table


def word(value: Any) -> str:
    """A value for reading; two digits of a small one, that no p-value looks like 0 or its bound."""
    if value is None:
        return "–"
    if not isinstance(value, float):
        return str(value)
    return f"{value:.2g}" if 0 < abs(value) < 0.01 else f"{value:.3f}"
