"""A trained dictionary on disk: model.safetensors and config.json, from which it is rebuilt alone.

Nothing is ever unpickled.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import safetensors
import safetensors.torch
import torch

from pipeline.errors import DictionaryError
from store.files import fsync_folder, write_atomic
from train.dictionary.activation import build_activation, describe_activation
from train.dictionary.crosscoder import Crosscoder, HookpointShape
from train.dictionary.partition import FeatureGroup, Partition
from train.dictionary_config import NormalizationName

FORMAT = "crossdiff-dictionary"
VERSION = 1
WEIGHTS, CONFIG = "model.safetensors", "config.json"


def save_dictionary(folder: Path, dictionary: Crosscoder, provenance: dict[str, Any]) -> None:
    """Writes weights, then config.json; `provenance` (recipe, settings, store) is kept in it.

    An older config.json goes first: while weights are replaced there is no dictionary here.
    """
    weights = {
        name: value.detach().cpu().contiguous() for name, value in dictionary.state_dict().items()
    }
    if (folder / CONFIG).exists():
        (folder / CONFIG).unlink()
        fsync_folder(folder)
    write_atomic(folder / WEIGHTS, [safetensors.torch.save(weights)])
    description = {"format": FORMAT, "version": VERSION, **describe(dictionary), **provenance}
    write_atomic(folder / CONFIG, [json.dumps(description, indent=1).encode()])


def add_to_description(folder: Path, more: dict[str, Any]) -> None:
    """Adds to what config.json says; it is replaced as a whole. Raises DictionaryError."""
    description = {**read_description(folder), **more}
    write_atomic(folder / CONFIG, [json.dumps(description, indent=1).encode()])


def describe(dictionary: Crosscoder) -> dict[str, Any]:
    """The architecture as JSON values."""
    return {
        "hookpoints": [asdict(hookpoint) for hookpoint in dictionary.hookpoints],
        "partition": [asdict(group) for group in dictionary.partition.groups],
        "code_normalization": dictionary.normalization,
        "activation": describe_activation(dictionary.activation),
        "center": dictionary.center,
        "means": dictionary.means,
        "residual": dictionary.prediction is not None,
        "dtype": str(dictionary.b_enc.dtype).removeprefix("torch."),
    }


def load_dictionary(folder: Path) -> Crosscoder:
    """Rebuilds a dictionary from its folder. Raises DictionaryError naming the file."""
    dictionary = build(read_description(folder), folder / CONFIG)
    load_weights(dictionary, folder / WEIGHTS)
    return dictionary.eval()


def read_description(folder: Path) -> dict[str, Any]:
    """config.json of a dictionary. Raises DictionaryError."""
    file = folder / CONFIG
    try:
        value = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise DictionaryError(f"{file}: no such file; train a dictionary first") from None
    except (OSError, ValueError) as error:
        raise DictionaryError(f"{file}: cannot be read as JSON ({error})") from None
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise DictionaryError(f"{file}: not a dictionary of this project (no {FORMAT} mark)")
    if value.get("version") != VERSION:
        raise DictionaryError(
            f"{file}: dictionary version {value.get('version')!r}, this program reads {VERSION}"
        )
    _refuse_other_types(file, value)
    return value


def _refuse_other_types(file: Path, description: dict[str, Any]) -> None:
    """What is read from a description besides the architecture must be what it should be."""
    for key, kind in (("hookpoints", list), ("partition", list), ("train", dict)):
        value = description.get(key, {} if key == "train" else None)
        if not isinstance(value, kind):
            name = "an object" if kind is dict else "a list"
            raise DictionaryError(
                f"{file}: damaged description ({key} is {value!r}, not {name}); train it anew"
            )
    held_out = description.get("train", {}).get("validation_fraction", 0.0)
    if isinstance(held_out, bool) or not isinstance(held_out, int | float):
        raise DictionaryError(
            f"{file}: damaged description (train.validation_fraction is {held_out!r}, "
            "not a number); train it anew"
        )


def build(description: dict[str, Any], file: Path) -> Crosscoder:
    """An empty dictionary of the described architecture."""
    try:
        groups = tuple(
            FeatureGroup(group["name"], tuple(group["models"]), int(group["size"]))
            for group in description["partition"]
        )
        hookpoints = tuple(HookpointShape(**entry) for entry in description["hookpoints"])
        dtype = {"float32": torch.float32, "float64": torch.float64}[description["dtype"]]
        normalization = description["code_normalization"]
        if normalization not in get_args(NormalizationName):
            raise ValueError(f"unknown code_normalization {normalization!r}")
        return Crosscoder(
            hookpoints,
            Partition(groups),
            normalization,
            dtype,
            activation=build_activation(description.get("activation", {"kind": "batch_topk"})),
            center=bool(description.get("center", False)),
            means=bool(description.get("means", False)),
            residual=bool(description.get("residual", False)),
        )
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise DictionaryError(f"{file}: damaged description ({error!r})") from None


def load_weights(dictionary: Crosscoder, file: Path) -> None:
    """Fills a dictionary from a safetensors file. Raises DictionaryError."""
    try:
        weights = safetensors.torch.load_file(file)
        weights.setdefault("norm_scale", torch.ones_like(dictionary.norm_scale))
        dictionary.load_state_dict(weights)
    except FileNotFoundError:
        raise DictionaryError(f"{file}: no such file; train a dictionary first") from None
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:
        raise DictionaryError(f"{file}: does not hold this dictionary ({error})") from None
