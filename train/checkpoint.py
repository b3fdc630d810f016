"""Checkpoints from which a killed run goes on to bit-identical weights.

`checkpoints/step_00005000/{state.safetensors, state.json}`: model, Adam's moments, dead-feature
counters, inference threshold; step, loader position and length of metrics.jsonl. The folder is
written under another name and renamed, so a checkpoint exists whole or not at all. The loop draws
no random numbers after step 0: the order of rows is a function of the seed and the step.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from pipeline.errors import DictionaryError
from store.files import TEMPORARY, fsync_folder, write_atomic
from train.dictionary.artifact import describe
from train.trainee import Trainee

STATE, TENSORS = "state.json", "state.safetensors"


@dataclass(frozen=True)
class Progress:
    """Where the loop stood: steps done, the loader's state, bytes of metrics written."""

    step: int
    loader: dict[str, Any]
    metrics_bytes: int


def save_checkpoint(
    folder: Path, trainee: Trainee, progress: Progress, settings: dict[str, Any], keep: int
) -> Path:
    """Writes a checkpoint and removes all but the newest `keep`."""
    place = folder / f"step_{progress.step:08d}"
    temporary = place.with_name(place.name + TEMPORARY)
    _remove_unfinished(folder)
    state = {
        "recipe": trainee.name,
        "progress": asdict(progress),
        "settings": settings,
        "architecture": describe(trainee.dictionary),
    }
    try:
        write_atomic(temporary / TENSORS, [safetensors.torch.save(_tensors(trainee))])
        write_atomic(temporary / STATE, [json.dumps(state, indent=1).encode()])
    except OSError:  # a full disk should not stay full of this
        _remove_unfinished(folder)
        raise
    shutil.rmtree(place, ignore_errors=True)
    os.replace(temporary, place)
    fsync_folder(folder)
    for old in saved_steps(folder)[:-keep]:
        shutil.rmtree(folder / f"step_{old:08d}")
    return place


def saved_steps(folder: Path) -> list[int]:
    """Steps of the checkpoints in a folder, ascending."""
    names = (entry.name.removeprefix("step_") for entry in folder.glob("step_*"))
    return sorted(int(name) for name in names if name.isdigit())


def load_checkpoint(
    folder: Path, step: int, trainee: Trainee, settings: dict[str, Any]
) -> Progress:
    """Restores a trainee in place.

    Raises DictionaryError if the checkpoint is damaged, is that of another recipe or architecture,
    or was begun with other settings.
    """
    place = folder / f"step_{step:08d}"
    file = place / STATE
    try:
        state = json.loads(file.read_bytes())
        begun, progress = dict(state["settings"]), Progress(**state["progress"])
        _refuse_other_recipe(place, state.get("recipe"), trainee.name)
        _refuse_other_settings(place, begun, settings)
        _refuse_other_architecture(place, dict(state["architecture"]), trainee)
        file = place / TENSORS
        _restore(trainee, safetensors.torch.load_file(file))
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        RuntimeError,
        safetensors.SafetensorError,
    ) as error:
        raise DictionaryError(
            f"{file}: damaged ({error!r}); delete {place} to go back to an older checkpoint"
        ) from None
    return progress


def _remove_unfinished(folder: Path) -> None:
    for stray in folder.glob(f"step_*{TEMPORARY}"):
        shutil.rmtree(stray, ignore_errors=True)


def _refuse_other_recipe(place: Path, had: str | None, have: str) -> None:
    folder = place.parent.parent
    if had != have:
        raise DictionaryError(
            f"{folder}: holds checkpoints of recipe {had!r}, now it would be {have!r}; "
            f"name another folder with --out, or delete {folder} to train anew"
        )


def _refuse_other_architecture(place: Path, had: dict[str, Any], trainee: Trainee) -> None:
    folder = place.parent.parent
    have = json.loads(json.dumps(describe(trainee.dictionary)))
    for key in sorted(had.keys() | have.keys()):
        if had.get(key) != have.get(key):
            raise DictionaryError(
                f"{folder}: holds checkpoints with {key} {had.get(key)!r}, now {have.get(key)!r}; "
                f"name another folder with --out, or delete {folder} to train anew"
            )


def _refuse_other_settings(place: Path, begun: dict[str, Any], settings: dict[str, Any]) -> None:
    for key in sorted(settings.keys() | begun.keys()):
        had, have = begun.get(key), settings.get(key)
        if had != have:
            raise DictionaryError(
                f"{place}: was written with {key} {had!r}, now {have!r}; "
                f"restore it, or delete {place.parent.parent} to train anew"
            )


def _tensors(trainee: Trainee) -> dict[str, Tensor]:
    tensors = {f"model.{name}": value for name, value in trainee.dictionary.state_dict().items()}
    for number, moments in trainee.optimizer.state_dict()["state"].items():
        tensors |= {f"adam.{number}.{name}": value for name, value in moments.items()}
    tensors["rows_since_fired"] = trainee.rows_since_fired
    tensors["dead"] = trainee.dead
    return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}


def _restore(trainee: Trainee, tensors: dict[str, Tensor]) -> None:
    device = trainee.rows_since_fired.device
    model = {
        name.removeprefix("model."): value
        for name, value in tensors.items()
        if name.startswith("model.")
    }
    trainee.dictionary.load_state_dict(model)
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("adam."):
            _, number, kind = name.split(".")
            moments.setdefault(int(number), {})[kind] = value
    groups = trainee.optimizer.state_dict()["param_groups"]
    trainee.optimizer.load_state_dict({"state": moments, "param_groups": groups})
    trainee.rows_since_fired = tensors["rows_since_fired"].to(device)
    trainee.dead = tensors["dead"].to(device, torch.bool)
    trainee.refresh_dead_features()
