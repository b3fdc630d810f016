"""What the commands of `analyze` share: options, settings, the store, tables on the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from analyze.config import AnalyzeConfig, check_models
from pipeline.command import console, read_config
from pipeline.config import Config

if TYPE_CHECKING:
    from store.reader import Store

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


def read_settings(file: Path | None, overrides: list[str] | None) -> tuple[Config, AnalyzeConfig]:
    """Validates the section, and what it says of the configuration's models."""
    settings = read_config(file, overrides)
    section = settings.section("analyze", AnalyzeConfig)
    if settings.raw.get("models"):
        check_models(section.planted, settings.models)
    return settings, section


def open_store(path: Path) -> Store:
    """The store; says so if it is not complete."""
    from store.reader import Store

    store = Store(path)
    if not store.complete:
        console.print(
            f"[yellow]note:[/] {escape(str(path))} is not complete; analyzing what it has"
        )
    return store


def rows_table(rows: list[dict[str, Any]], title: str) -> Table:
    """A table for the terminal; `rows` must not be empty."""
    table = Table(*(escape(name) for name in rows[0]), title=title, title_justify="left")
    for row in rows:
        table.add_row(*(escape(word(value)) for value in row.values()))
    return table


def word(value: Any) -> str:
    """A value for reading."""
    if value is None:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
