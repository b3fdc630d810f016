"""Options of `harvest plan` and `train plan`: figures in place of what would be measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from pipeline.errors import ConfigError

AssumeRows = Annotated[
    int | None,
    typer.Option(
        "--assume-rows",
        min=1,
        help="Plan from assumptions, without models, corpus or store: rows of the store.",
    ),
]
AssumeWidth = Annotated[
    list[str] | None,
    typer.Option(
        "--assume-width",
        help="The same: MODEL=WIDTH of a hookpoint; one per model, e.g. a=4096.",
    ),
]
AssumeRate = Annotated[
    float | None, typer.Option("--assume-rate", min=0.001, help="The same: rows per second.")
]


@dataclass(frozen=True)
class Assumptions:
    """Rows, width of each model's hookpoint, rows per second."""

    rows: int
    widths: dict[str, int]
    rate: float


def read_assumptions(
    rows: int | None, widths: list[str] | None, rate: float | None
) -> Assumptions | None:
    """None if nothing is assumed. Raises ConfigError unless everything is."""
    if rows is None and not widths and rate is None:
        return None
    if rows is None or not widths or rate is None:
        raise ConfigError("--assume-rows, --assume-width and --assume-rate: give all of them")
    found = {}
    for text in widths:
        name, _, width = text.partition("=")
        if not name or not width.isdecimal() or not int(width):
            raise ConfigError(f"--assume-width {text}: expected MODEL=WIDTH, e.g. a=4096")
        found[name] = int(width)
    return Assumptions(rows, found, rate)
