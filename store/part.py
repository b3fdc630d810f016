"""A part's attributes as its last commit left them, looked through before anything trusts them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.errors import StoreError
from store.files import read_json
from store.schema import StoreSchema
from store.statistics import RowStatistics

COUNTS = ("rows", "documents", "text_bytes", "cursor")


def read_part(folder: Path, schema: StoreSchema) -> dict[str, Any]:
    """Reads the attributes. Raises StoreError naming the file if one is missing or damaged."""
    file = folder / "zarr.json"
    try:
        attributes = read_json(file)["attributes"]
        _check(attributes, schema)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(
            f"{file}: damaged part attributes ({error!r}); delete the store and harvest it again"
        ) from None
    return attributes


def _check(attributes: dict[str, Any], schema: StoreSchema) -> None:
    """Raises KeyError, TypeError, ValueError or AttributeError if anything is amiss."""
    for name in COUNTS:
        _check_count(name, attributes[name])
    for name, kind in (("complete", bool), ("labels", list)):
        if not isinstance(attributes[name], kind):
            raise TypeError(f"{name} is {attributes[name]!r}")
    for model in schema.models:
        for name in ("read", "paired"):
            _check_count(f"tokens.{model}.{name}", attributes["tokens"][model][name])
    for hookpoint in schema.hookpoints:
        found = RowStatistics.from_json(attributes["statistics"][hookpoint.name])
        _check_count(f"statistics.{hookpoint.name}.count", found.count)
        for values in (found.mean, found.squared_deviations):
            if values.shape != (hookpoint.width,):
                raise ValueError(f"statistics of {hookpoint.name} have shape {values.shape}")


def _check_count(name: str, value: object) -> None:
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"{name} is {value!r}")
