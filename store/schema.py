"""What a store holds, as frozen values that travel between stages, and where each piece lies.

store.zarr/zarr.json                attributes: the schema below
parts/00000/zarr.json               attributes: committed rows, cursor, statistics, complete
parts/00000/commits                 what each commit brought, one JSON line each: (bytes,)
parts/00000/activations/<hookpoint> (rows, width)
parts/00000/rows/<column>           document, char_start, char_end, token_<model>: (rows,)
parts/00000/documents/<column>      text (bytes,); text_end, row_end, label, source and hash, all
                                    (documents,)
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError

from pipeline.errors import StoreError

FORMAT = "crossdiff-store"
VERSION = 3
ROW_COLUMNS = ("document", "char_start", "char_end")
TEXT_CHUNK_BYTES = 1 << 20
LOG_CHUNK_BYTES = 1 << 14
DOCUMENT_CHUNK = 1 << 14
STRICT = ConfigDict(strict=True, extra="forbid")

CodecName = Literal["none", "lossless", "int8"]


def _inside_the_store(name: str) -> str:
    """Names become folders: one that could lead out of the store is refused."""
    good = re.fullmatch(r"[^/\\.][^/\\]{0,199}", name) and name.isprintable()
    if not good or name == "zarr.json":
        raise ValueError(f"{name!r} cannot name a folder of the store")
    return name


def is_words(text: str) -> bool:
    """Whether a text can be shown to users as it is: nothing in it steers their terminals."""
    return text.isprintable() and 0 < len(text) <= 200


def _words(text: str) -> str:
    if not is_words(text):
        raise ValueError(f"{text!r} is not 1 to 200 printable characters")
    return text


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) != len(names):
        raise ValueError(f"one name is there twice ({', '.join(names)})")
    return names


Name = Annotated[str, AfterValidator(_inside_the_store)]
Words = Annotated[str, AfterValidator(_words)]


@dataclass(frozen=True)
class Hookpoint:
    """A module of a model plus `in` or `out`; its name is unique in the store."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    name: Name
    model: Name
    width: Annotated[int, Field(ge=1, le=1 << 24)]
    dtype: Literal["bfloat16"] = "bfloat16"


@dataclass(frozen=True)
class StoreSchema:
    """Everything that two parts of one store must agree on.

    codec: how activations lie in their chunks (store.codec); parts: how many the store has when
    it is complete; vocabulary: token ids of a model lie below this, where it is known;
    column_chunks: a chunk of a row column has the rows of this many chunks of activations;
    sources: what the documents were read from, by the names of the configuration.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    hookpoints: Annotated[tuple[Hookpoint, ...], Field(min_length=1)]
    chunk_rows: Annotated[int, Field(ge=1, le=1 << 24)]
    fingerprints: dict[str, str]
    config: dict[str, Any]
    codec: CodecName = "none"
    parts: Annotated[int, Field(ge=1, le=99_999)] = 1
    vocabulary: dict[str, Annotated[int, Field(ge=1)]] = field(default_factory=dict)
    column_chunks: Annotated[int, Field(ge=1, le=1 << 10)] = 1
    sources: Annotated[tuple[Words, ...], Field(min_length=1), AfterValidator(_distinct)] = (
        "corpus",
    )

    @property
    def models(self) -> tuple[str, ...]:
        """Model names in the order of their first hookpoint."""
        return tuple(dict.fromkeys(hookpoint.model for hookpoint in self.hookpoints))

    @property
    def column_rows(self) -> int:
        """Rows per chunk of the row columns, so narrow that more of them go into a file."""
        return self.column_chunks * self.chunk_rows

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
        if not isinstance(attributes, dict) or attributes.get("format") != FORMAT:
            raise StoreError(f"{path}: not an activation store of this project (no {FORMAT} mark)")
        _refuse_other_version(attributes.get("version"), path)
        fields = {key: v for key, v in attributes.items() if key not in ("format", "version")}
        try:
            schema = _SCHEMA.validate_json(json.dumps(fields))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(step) for step in first["loc"])
            raise StoreError(
                f"{path}: damaged store attributes ({place}: {first['msg']}); "
                "restore zarr.json from a backup, or harvest the store again"
            ) from None
        names = [hookpoint.name for hookpoint in schema.hookpoints]
        if len(set(names)) != len(names):
            raise StoreError(f"{path}: two hookpoints have one name ({', '.join(names)})")
        return schema


_SCHEMA = TypeAdapter(StoreSchema)


def _refuse_other_version(version: object, path: Path) -> None:
    if version == VERSION and type(version) is int:
        return
    if isinstance(version, int) and version > VERSION:
        remedy = "install a newer crossdiff"
    else:
        remedy = "harvest it again with this one, or read it with the program that wrote it"
    raise StoreError(
        f"{path}: store version {version!r}, this program reads version {VERSION}; {remedy}"
    )


def part_path(store: Path, part: int) -> Path:
    """Folder of one part."""
    return store / "parts" / f"{part:05d}"


def chunk_file(array: Path, chunk: int, dimensions: int) -> Path:
    """File of the `chunk`-th chunk along the rows, zarr's default key encoding."""
    return array.joinpath("c", str(chunk), *["0"] * (dimensions - 1))
