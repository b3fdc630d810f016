"""What is analyzed: a dictionary on the rows of a store, opened once and checked for fit.

`fingerprint` names the two by their content, so that what one command has found out and kept on
disk is used by the next one only if both are still the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from analyze.labels import Labels, read_labels
from pipeline.errors import DictionaryError
from store.files import json_bytes
from store.loader import Batch
from store.reader import Store
from train.device import resolve_device
from train.dictionary.artifact import CONFIG, WEIGHTS, load_dictionary, read_description
from train.dictionary.crosscoder import Activations, Crosscoder


def as_stored(batch: Batch) -> Activations:
    """The rows as they are."""
    return batch.activations


@dataclass(frozen=True)
class Subject:
    """A dictionary and the rows that it is held against.

    folder: the dictionary's; description: its config.json; view: the raw
    activations that the dictionary sees of a batch, and view_name what that is called: a null
    changes them.
    """

    store: Store
    dictionary: Crosscoder
    folder: Path
    description: dict[str, Any] = field(default_factory=dict)
    view: Callable[[Batch], Activations] = as_stored
    view_name: str = "as stored"

    @property
    def recipe(self) -> str:
        """The recipe's name, or the folder's where none is known."""
        return str(self.description.get("recipe", self.folder.name))

    @property
    def features(self) -> int:
        """Features of the dictionary (F)."""
        return self.dictionary.partition.features

    @property
    def device(self) -> torch.device:
        """Where the dictionary is."""
        return self.dictionary.b_enc.device

    @property
    def validation_fraction(self) -> float:
        """Share of the documents that training held out."""
        return float(self.description.get("train", {}).get("validation_fraction", 0.0))

    @cached_property
    def labels(self) -> Labels:
        """The labels of the store's documents."""
        return read_labels(self.store.documents)

    @cached_property
    def held_out(self) -> np.ndarray:
        """Which documents training did not see, bool (documents,)."""
        return self.store.documents.validation_mask(self.validation_fraction)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the dictionary's files, of what the store says of its rows, and of the view."""
        total = hashlib.sha256()
        for name in (CONFIG, WEIGHTS):
            with open(self.folder / name, "rb") as file:
                total.update(hashlib.file_digest(file, "sha256").digest())
        schema, store = self.store.schema, self.store
        known = {"fingerprints": schema.fingerprints, "rows": store.rows, "view": self.view_name}
        total.update(json_bytes(known))
        total.update(store.documents.hashes.tobytes())
        for hookpoint in schema.hookpoints:
            statistics = store.statistics(hookpoint.name)
            total.update(json.dumps([hookpoint.name, statistics.count]).encode())
            total.update(np.ascontiguousarray(statistics.mean, np.float64).tobytes())
        return total.hexdigest()


def open_subject(store: Store, folder: Path, device: str = "auto") -> Subject:
    """Loads the dictionary in `folder` for the rows of `store`.

    Raises DictionaryError if it cannot be read, does not fit, or was trained on other models.
    """
    description = read_description(folder)
    dictionary = load_dictionary(folder).to(resolve_device(device, "analyze.device"))
    check_fit(store, dictionary)
    check_origin(store, description, folder)
    return Subject(store, dictionary, folder, description)


def check_fit(store: Store, dictionary: Crosscoder) -> None:
    """Raises DictionaryError unless the store has every hookpoint with the right width."""
    for hookpoint in dictionary.hookpoints:
        stored = store.hookpoint(hookpoint.name)
        if stored.width != hookpoint.width:
            raise DictionaryError(
                f"{store.path}: {hookpoint.name} has width {stored.width}, the dictionary "
                f"{hookpoint.width}; it was trained on another store"
            )


def check_origin(store: Store, description: dict[str, Any], folder: Path) -> None:
    """Raises DictionaryError if the dictionary was trained on activations of other models."""
    origin = description.get("store") or description.get("live") or {}
    begun = origin.get("fingerprints", {})
    for key, now in store.schema.fingerprints.items():
        if key.startswith("models.") and begun.get(key, now) != now:
            raise DictionaryError(
                f"{folder}: was trained on another model {key.removeprefix('models.')} "
                f"({begun[key]}) than {store.path} holds ({now}); name the store it was trained on"
            )
