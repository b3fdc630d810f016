"""The root of a store: begun once, by whichever part comes first, and the same for all parts."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import filelock

from pipeline.errors import StoreError
from store.difference import first_difference
from store.files import TEMPORARY, group_metadata, plain, read_json, write_group
from store.schema import StoreSchema
from store.seal import canonical, read_sealed, sealed, unsealed, write_sealed

REMEDY = "nothing else holds what it says: restore it from a backup, or harvest the store again"


def read_root(path: Path) -> StoreSchema:
    """What the store at `path` holds. Raises StoreError if that cannot be read or has changed."""
    file = path / "zarr.json"
    try:
        found = read_json(file).get("attributes")
    except StoreError as error:
        raise StoreError(f"{error}; {REMEDY}" if file.exists() else str(error)) from None
    # Before the checksum, so that a store of another version is called that.
    schema = StoreSchema.from_json(unsealed(found), file)
    read_sealed(path, REMEDY)
    return schema


def root_metadata(schema: StoreSchema) -> dict[str, Any]:
    """The root's zarr.json."""
    return group_metadata(sealed(_attributes(schema)))


def schema_digest(schema: StoreSchema) -> str:
    """What every part of a store carries: two parts with different ones do not belong together."""
    return hashlib.sha256(canonical(_attributes(schema))).hexdigest()


def begin_store(path: Path, schema: StoreSchema) -> None:
    """Writes the root's attributes, or checks that those there are the same.

    Raises StoreError if the store was begun with another schema, or if something else is there.
    """
    with filelock.FileLock(path.with_name(f".{path.name}.lock")):
        if (path / "zarr.json").exists():
            refuse_other_schema(path, schema)
        else:
            _refuse_foreign_folder(path)
            write_sealed(path, _attributes(schema))
        if not (path / "parts" / "zarr.json").exists():
            write_group(path / "parts", {})


def refuse_other_schema(path: Path, schema: StoreSchema) -> None:
    """Raises StoreError, naming the first key that differs, if the store has another schema."""
    difference = first_difference(_attributes(read_root(path)), _attributes(schema))
    if difference:
        raise StoreError(
            f"{path}: was begun with other settings ({difference}); "
            "restore them, or delete the store, or choose another run_dir"
        )


def _attributes(schema: StoreSchema) -> dict[str, Any]:
    return plain(schema.to_json())


def _refuse_foreign_folder(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise StoreError(f"{path}: is a file, not a store; choose another run_dir")
    begun = f"zarr.json{TEMPORARY}"  # what a writer leaves that died right here
    if path.exists() and any(entry.name != begun for entry in path.iterdir()):
        raise StoreError(f"{path}: folder is not empty and not a store; choose another")
