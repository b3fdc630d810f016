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
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from pipeline.errors import DictionaryError
from store.files import TEMPORARY, fsync_folder, write_atomic
from train.dictionary.artifact import CONFIG, WEIGHTS, describe
from train.trainee import Trainee

# Settings that are null for "as others say": what the user has changed is named before them.
FOLLOWING = {"bandwidth", "p_anneal_start", "sparsity_weight", "target_l0", "threshold_init"}
COUNTERS = ("rows_since_fired", "dead", "bad_batches")
STATE, TENSORS = "state.json", "state.safetensors"


@dataclass(frozen=True)
class Progress:
    """Where the loop stood: steps done, the loader's state, bytes of metrics written.

    best: step and held-out loss of the best checkpoint so far, this one included; losses: what
    train.divergence watches; validation_due: the step's validation was cut short by a signal.
    """

    step: int
    loader: dict[str, Any]
    metrics_bytes: int
    best: dict[str, Any] | None = None
    losses: dict[str, float | None] = field(default_factory=dict)
    validation_due: bool = False


def save_checkpoint(
    folder: Path, trainee: Trainee, progress: Progress, settings: dict[str, Any]
) -> Path:
    """Writes a checkpoint beside the others."""
    place = folder / f"step_{progress.step:08d}"
    temporary = place.with_name(place.name + TEMPORARY)
    _remove_unfinished(folder)
    state = {
        "recipe": trainee.config.recipes[0],
        "progress": asdict(progress),
        "settings": settings,
        "architecture": describe(trainee.dictionary),
    }
    try:
        write_atomic(temporary / TENSORS, [safetensors.torch.save(tensors_of(trainee))])
        write_atomic(temporary / STATE, [json.dumps(state, indent=1).encode()])
    except OSError:  # a full disk should not stay full of this
        _remove_unfinished(folder)
        raise
    shutil.rmtree(place, ignore_errors=True)
    os.replace(temporary, place)
    fsync_folder(folder)
    return place


def prune(folder: Path, keep: int, best: int | None) -> None:
    """Removes all checkpoints but the newest `keep` and that of step `best`."""
    for old in saved_steps(folder)[:-keep]:
        if old != best:
            shutil.rmtree(folder / f"step_{old:08d}")


def discard_run(folder: Path) -> None:
    """Removes what a run has left in a dictionary's folder; its log is cut by train.metrics.

    Killed on the way, what is left is either all of the checkpoints or none.
    """
    checkpoints = folder / "checkpoints"
    condemned = checkpoints.with_name(checkpoints.name + TEMPORARY)
    shutil.rmtree(condemned, ignore_errors=True)
    for name in (CONFIG, WEIGHTS):  # without its description a dictionary does not exist
        (folder / name).unlink(missing_ok=True)
    if checkpoints.exists():
        os.replace(checkpoints, condemned)
        fsync_folder(folder)
        shutil.rmtree(condemned)


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
        _refuse_other_recipe(place, state.get("recipe"), trainee.config.recipes[0])
        _refuse_other_settings(place, begun, settings)
        architecture = {"residual": False, **state["architecture"]}  # older ones do not say it
        _refuse_other_architecture(place, architecture, trainee)
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


def _refuse_other_recipe(place: Path, had: Any, have: Any) -> None:
    folder = place.parent.parent
    if had != have:
        raise DictionaryError(
            f"{folder}: holds checkpoints of recipe {had!r}, now it would be {have!r}; "
            "name another folder with --out, or start over with --fresh"
        )


def _refuse_other_architecture(place: Path, had: dict[str, Any], trainee: Trainee) -> None:
    folder = place.parent.parent
    have = json.loads(json.dumps(describe(trainee.dictionary)))
    for key in sorted(had.keys() | have.keys()):
        if had.get(key) != have.get(key):
            raise DictionaryError(
                f"{folder}: holds checkpoints with {key} {had.get(key)!r}, now {have.get(key)!r}; "
                "name another folder with --out, or start over with --fresh"
            )


def _refuse_other_settings(place: Path, begun: dict[str, Any], settings: dict[str, Any]) -> None:
    keys = settings.keys() | begun.keys()
    for key in sorted(keys, key=lambda key: (key in FOLLOWING, key)):
        had, have = begun.get(key), settings.get(key)
        if had != have:
            raise DictionaryError(
                f"{place}: was written with {key} {had!r}, now {have!r}; "
                "restore it, or start over with --fresh"
            )


def tensors_of(trainee: Trainee) -> dict[str, Tensor]:
    """Everything of a trainee that a step changes, on the CPU."""
    tensors = {f"model.{name}": value for name, value in trainee.dictionary.state_dict().items()}
    for number, moments in trainee.optimizer.state_dict()["state"].items():
        tensors |= {f"adam.{number}.{name}": value for name, value in moments.items()}
    tensors |= {name: getattr(trainee, name) for name in COUNTERS}
    if trainee.annealed is not None:
        tensors |= {f"annealed.{name}": one for name, one in trainee.annealed.tensors().items()}
    return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}


def _restore(trainee: Trainee, tensors: dict[str, Tensor]) -> None:
    trainee.dictionary.load_state_dict(_under("model.", tensors))
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("adam."):
            _, number, kind = name.split(".")
            moments.setdefault(int(number), {})[kind] = value
    groups = trainee.optimizer.state_dict()["param_groups"]
    trainee.optimizer.load_state_dict({"state": moments, "param_groups": groups})
    for name in COUNTERS:
        value = getattr(trainee, name)
        setattr(trainee, name, tensors[name].to(value.device, value.dtype))
    if trainee.annealed is not None:
        trainee.annealed.load(_under("annealed.", tensors))
    trainee.refresh_dead_features()


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }
