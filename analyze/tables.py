"""The tables and pictures of an analysis in its folder, and which subject each was made of.

`tables.json` holds a fingerprint per table: what an earlier command found out is used by a later
one (the report, the verdict) only if it is about the same dictionary on the same rows.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
from plotly.graph_objects import Figure

from store.files import write_atomic, write_json

INDEX = "tables.json"
Png = Callable[[Path], None]


class Tables:
    """The folder's tables of one subject."""

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self.folder = folder
        self._fingerprint = fingerprint

    def write(
        self, name: str, table: pl.DataFrame, png: Png | None = None, figure: Figure | None = None
    ) -> list[Path]:
        """Writes NAME.parquet and NAME.csv (without nested columns), .png and .html; the files."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._note(name, "")  # while files are replaced, they are nobody's
        files = [self.folder / f"{name}.parquet", self.folder / f"{name}.csv"]
        table.write_parquet(files[0])
        table.select(~pl.selectors.nested()).write_csv(files[1])
        if png is not None:
            files.append(self.folder / f"{name}.png")
            png(files[-1])
        if figure is not None:
            files.append(self.folder / f"{name}.html")
            page = figure.to_html(include_plotlyjs=True)
            write_atomic(files[-1], [page.encode("utf-8", errors="replace")])
        self._note(name, self._fingerprint)
        return files

    @property
    def names(self) -> list[str]:
        """Tables that were written of this subject."""
        return sorted(name for name in self._index() if self.has(name))

    def has(self, name: str) -> bool:
        """Whether a table was written of this subject."""
        there = (self.folder / f"{name}.parquet").exists()
        return there and self._index().get(name) == self._fingerprint

    def read(self, name: str) -> pl.DataFrame | None:
        """A table that was written of this subject; None where there is none."""
        if self._index().get(name) != self._fingerprint:
            return None
        try:
            return pl.read_parquet(self.folder / f"{name}.parquet")
        except (OSError, pl.exceptions.PolarsError):
            return None

    def remove(self, name: str) -> None:
        """Removes a table of this subject with its pictures."""
        self._note(name, "")
        for ending in ("parquet", "csv", "png", "html"):
            (self.folder / f"{name}.{ending}").unlink(missing_ok=True)

    def _note(self, name: str, fingerprint: str) -> None:
        write_json(self.folder / INDEX, {**self._index(), name: fingerprint})

    def _index(self) -> dict[str, str]:
        try:
            found = json.loads((self.folder / INDEX).read_bytes())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}
