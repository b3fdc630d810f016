"""Names for what comes from activation caches, from the paths that their collector gave them.

Pure: looks at paths alone. Models get names that the configuration file accepts; a hookpoint is
called <model>.<submodule>_<io>.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import StoreError

SPLIT = re.compile(r"(train|training|valid|validation|val|test|dev|eval)([^a-z].*)?", re.IGNORECASE)
MODEL_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class CacheName:
    """What a cache is called in a store, and the dataset it was collected on."""

    model: str
    hookpoint: str
    dataset: str


def name_caches(folders: Sequence[Path], models: Sequence[str]) -> list[CacheName]:
    """One name per cache; `models` are those the user gave, one per cache, or none.

    Raises StoreError if two caches would be one hookpoint, or the paths leave open whether two
    caches are of one model.
    """
    paths = [Path(os.path.abspath(folder)) for folder in folders]
    places = [_place(path) for path in paths]
    given = _given(folders, models) or _models_of([model for model, _ in places], folders)
    names = [
        CacheName(model, f"{model}.{_safe(path.name)}", dataset)
        for model, path, (_, dataset) in zip(given, paths, places, strict=True)
    ]
    for number, name in enumerate(names):
        for other in range(number):
            if names[other].hookpoint == name.hookpoint:
                raise StoreError(
                    f"{folders[other]} and {folders[number]}: both are hookpoint "
                    f"{name.hookpoint}; name one cache per hookpoint, or tell their models apart "
                    "with --model NAME once per cache"
                )
    return names


def _given(folders: Sequence[Path], models: Sequence[str]) -> list[str]:
    if models and len(models) != len(folders):
        raise StoreError(
            f"--model: {len(models)} names ({', '.join(models)}) for {len(folders)} caches; "
            "give one per cache, in the order of the caches"
        )
    for model in models:
        if not MODEL_NAME.fullmatch(model) or len(model) > 64:
            raise StoreError(
                f"--model: {model!r} must be a small letter, then small letters, digits and _ "
                f"(such as {_model_name(model)})"
            )
    return list(models)


def _models_of(folders: list[Path], caches: Sequence[Path]) -> list[str]:
    """A name per cache: equal where the model's folder is the same one."""
    names: dict[Path, str] = {}
    for number, folder in enumerate(folders):
        name = _model_name(folder.name)
        if folder not in names and name in names.values():
            raise StoreError(
                f"{caches[folders.index(next(f for f in names if names[f] == name))]} and "
                f"{caches[number]}: both paths call their model {name}; say whether it is one "
                "model, with --model NAME once per cache"
            )
        names[folder] = name
    return [names[folder] for folder in folders]


def _place(cache: Path) -> tuple[Path, str]:
    """The model's folder and the name of the dataset's."""
    dataset = cache.parent
    if SPLIT.fullmatch(dataset.name) and dataset.parent.parent.name:
        dataset = dataset.parent
    return dataset.parent, dataset.name


def _model_name(text: str) -> str:
    name = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")[:64]
    return name if MODEL_NAME.fullmatch(name) else f"model_{name}".rstrip("_")[:64]


def _safe(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text).lstrip(".")[:120] or "hookpoint"
