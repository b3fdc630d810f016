"""The root of a store: begun once, by whichever part comes first, and the same for all parts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import filelock

from pipeline.errors import StoreError
from store.files import TEMPORARY, read_json, write_group
from store.schema import StoreSchema


def begin_store(path: Path, schema: StoreSchema) -> None:
    """Writes the root's attributes, or checks that those there are the same.

    Raises StoreError if the store was begun with another schema, or if something else is there.
    """
    with filelock.FileLock(path.with_name(f".{path.name}.lock")):
        if (path / "zarr.json").exists():
            refuse_other_schema(path, schema)
        else:
            _refuse_foreign_folder(path)
            write_group(path, schema.to_json())
        if not (path / "parts" / "zarr.json").exists():
            write_group(path / "parts", {})


def refuse_other_schema(path: Path, schema: StoreSchema) -> None:
    """Raises StoreError, naming the first key that differs, if the store has another schema."""
    found = read_json(path / "zarr.json").get("attributes", {})
    StoreSchema.from_json(found, path)
    difference = _first_difference(found, json.loads(json.dumps(schema.to_json())))
    if difference:
        raise StoreError(
            f"{path}: was begun with other settings ({difference}); "
            "restore them, or delete the store, or choose another run_dir"
        )


def _refuse_foreign_folder(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise StoreError(f"{path}: is a file, not a store; choose another run_dir")
    begun = f"zarr.json{TEMPORARY}"  # what a writer leaves that died right here
    if path.exists() and any(entry.name != begun for entry in path.iterdir()):
        raise StoreError(f"{path}: folder is not empty and not a store; choose another")


def _first_difference(found: Any, wanted: Any, path: str = "") -> str:
    """Where two JSON values first differ, in words; empty if they are equal."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in [*found, *(key for key in wanted if key not in found)]:
            step = f"{path}.{key}" if path else str(key)
            text = _first_difference(found.get(key), wanted.get(key), step)
            if text:
                return text
        return ""
    if isinstance(found, list) and isinstance(wanted, list) and len(found) == len(wanted):
        for number, (left, right) in enumerate(zip(found, wanted, strict=True)):
            text = _first_difference(left, right, f"{path}[{number}]")
            if text:
                return text
        return ""
    return "" if found == wanted else f"{path}: store has {found!r}, now {wanted!r}"
