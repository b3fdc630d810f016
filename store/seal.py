"""Attributes that carry their own checksum: a group's zarr.json whose values have changed is found.

The crc32c is taken over the canonical JSON of all other attributes (keys sorted, no spaces), so
that another zarr client may lay the file out anew without breaking it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import google_crc32c

from pipeline.errors import StoreError
from store.files import read_json, write_group

CHECKSUM = "crc32c"


def crc32c(data: bytes) -> str:
    """Checksum of some bytes, eight hexadecimal digits."""
    return f"{google_crc32c.value(data):08x}"


def canonical(value: Any) -> bytes:
    """The one serialization of a plain JSON value. Raises ValueError for NaN and infinity."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def sealed(attributes: dict[str, Any]) -> dict[str, Any]:
    """The attributes with their checksum."""
    return {**attributes, CHECKSUM: crc32c(canonical(attributes))}


def unsealed(attributes: Any) -> dict[str, Any]:
    """The attributes without their checksum, which is not looked at; none if they are no object."""
    if not isinstance(attributes, dict):
        return {}
    return {key: value for key, value in attributes.items() if key != CHECKSUM}


def write_sealed(folder: Path, attributes: dict[str, Any]) -> None:
    """Writes a zarr group whose attributes carry their checksum, durably and atomically."""
    write_group(folder, sealed(attributes))


def read_sealed(folder: Path, remedy: str) -> dict[str, Any]:
    """A group's attributes without their checksum, which must fit. Raises StoreError."""
    file = folder / "zarr.json"
    attributes = read_json(file).get("attributes")
    if not isinstance(attributes, dict):
        raise StoreError(f"{file}: has no attributes; {remedy}")
    stored = attributes.get(CHECKSUM)
    plain = unsealed(attributes)
    try:
        found = crc32c(canonical(plain))
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{file}: damaged attributes ({error}); {remedy}") from None
    if stored != found:
        raise StoreError(
            f"{file}: checksum of its attributes is {found}, expected {stored!r}: they have "
            f"changed; {remedy}"
        )
    return plain
