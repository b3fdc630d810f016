"""One feature with all that is known of it: described now, and what other commands have found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import polars as pl

from analyze.features.described import Described
from analyze.tables import Tables

OTHERS = ("norms", "scaling", "transfer", "exclusivity", "steer")
Line = dict[str, Any]


@dataclass(frozen=True)
class Card:
    """Lines of each table that are about one feature; those of features have one.

    found: lines by the name of another command's table, of those that have some; notes: why
    something is not there.
    """

    feature: Line
    contexts: list[Line]
    tokens: list[Line]
    neighbours: list[Line]
    mirrors: list[Line]
    found: dict[str, list[Line]]
    notes: list[str]

    @property
    def number(self) -> int:
        """The feature's."""
        return int(self.feature["feature"])


def known_tokens(tables: Tables, feature: int) -> pl.DataFrame | None:
    """The feature's lens, if `analyze features` has looked at it; None if it has not."""
    tokens = tables.read("tokens")
    known = None if tokens is None else tokens.filter(pl.col("feature") == feature)
    return None if known is None or known.is_empty() else known


def make_card(
    feature: int,
    described: Described,
    tokens: pl.DataFrame | None,
    tables: Tables,
    notes: list[str],
) -> Card:
    """The card of one feature out of tables that may hold others."""
    of = pl.col("feature") == feature
    mirrored = (pl.col("feature_a") == feature) | (pl.col("feature_b") == feature)
    others = {name: tables.read(name) for name in OTHERS}
    found = {name: _lines(table, of) for name, table in others.items() if table is not None}
    (own,) = _lines(described.features, of)
    return Card(
        own,
        _lines(described.contexts, of),
        [] if tokens is None else _lines(tokens, of),
        _lines(described.neighbours, of),
        _lines(described.mirrors, mirrored),
        {name: lines for name, lines in found.items() if lines},
        notes,
    )


def _lines(table: pl.DataFrame, condition: pl.Expr) -> list[Line]:
    floats = pl.selectors.float().fill_nan(None)
    return table.filter(condition).with_columns(floats).to_dicts()
