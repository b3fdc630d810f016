"""What a store holds, as frozen values that travel between stages, and where each piece lies.

store.zarr/zarr.json                attributes: the schema below
parts/00000/zarr.json               attributes: committed rows, cursor, statistics, complete
parts/00000/activations/<hookpoint> (rows, width)
parts/00000/rows/<column>           document, char_start, char_end, token_<model>: (rows,)
parts/00000/documents/<column>      text (bytes,), text_end, label, hash: (documents,)
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import StoreError

FORMAT = "crossdiff-store"
VERSION = 1
ROW_COLUMNS = ("document", "char_start", "char_end")
TEXT_CHUNK_BYTES = 1 << 20
DOCUMENT_CHUNK = 1 << 14


@dataclass(frozen=True)
class Hookpoint:
    """A module of a model plus `in` or `out`; its name is unique in the store."""

    name: str
    model: str
    width: int
    dtype: str = "bfloat16"


@dataclass(frozen=True)
class StoreSchema:
    """Everything that two parts of one store must agree on."""

    hookpoints: tuple[Hookpoint, ...]
    chunk_rows: int
    fingerprints: dict[str, str]
    config: dict[str, Any]

    @property
    def models(self) -> tuple[str, ...]:
        """Model names in the order of their first hookpoint."""
        return tuple(dict.fromkeys(hookpoint.model for hookpoint in self.hookpoints))

    @property
    def row_columns(self) -> tuple[str, ...]:
        """Names of the columns with one value per row."""
        return (*ROW_COLUMNS, *(f"token_{model}" for model in self.models))

    def to_json(self) -> dict[str, Any]:
        """The attributes of the store's root group."""
        return {"format": FORMAT, "version": VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, attributes: dict[str, Any], path: Path) -> StoreSchema:
        """Inverse of `to_json`. Raises StoreError if these are not a store's attributes."""
        if attributes.get("format") != FORMAT:
            raise StoreError(f"{path}: not an activation store of this project (no {FORMAT} mark)")
        if attributes.get("version") != VERSION:
            raise StoreError(
                f"{path}: store version {attributes.get('version')!r}, this program reads {VERSION}"
            )
        try:
            return cls(
                hookpoints=tuple(Hookpoint(**entry) for entry in attributes["hookpoints"]),
                chunk_rows=int(attributes["chunk_rows"]),
                fingerprints=dict(attributes["fingerprints"]),
                config=dict(attributes["config"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(f"{path}: damaged store attributes ({error!r})") from None


def part_path(store: Path, part: int) -> Path:
    """Folder of one part."""
    return store / "parts" / f"{part:05d}"


def chunk_file(array: Path, chunk: int, dimensions: int) -> Path:
    """File of the `chunk`-th chunk along the rows, zarr's default key encoding."""
    return array.joinpath("c", str(chunk), *["0"] * (dimensions - 1))
