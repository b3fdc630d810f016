"""Tables as other commands wrote them, looked up by feature; columns may be missing or null."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import polars as pl

Line = dict[str, Any]


class Lines:
    """Lines of a table by feature, for some features, in the table's order."""

    def __init__(self, table: pl.DataFrame | None, features: list[int], key: str = "feature"):
        self._of: dict[int, list[Line]] = defaultdict(list)
        if table is not None and key in table.columns:
            for line in table.filter(pl.col(key).is_in(features)).iter_rows(named=True):
                self._of[line[key]].append(line)

    def of(self, feature: int) -> list[Line]:
        """The feature's lines."""
        return self._of.get(feature, [])

    def first(self, feature: int) -> Line:
        """The feature's first line; without any, an empty one."""
        return next(iter(self.of(feature)), {})


def rows(table: pl.DataFrame | None) -> list[Line]:
    """All lines of a table; none where there is no table."""
    return [] if table is None else table.to_dicts()


def largest(lines: list[Line], column: str) -> float | None:
    """The largest value that a column has in these lines; None where there is none."""
    found = [line[column] for line in lines if line.get(column) is not None]
    return max(found, default=None)
