"""Whether a run has already ended, found out from its files: no row is read for it."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline.errors import DictionaryError
from train.best import read_best
from train.checkpoint import saved_steps
from train.config import TrainConfig
from train.dictionary.artifact import WEIGHTS, read_description
from train.evaluate import Evaluation
from train.loop import TrainedDictionary
from train.recipes.presets import planned
from train.recipes.recipe import output_folder
from train.recipes.units import NOT_SAID, units_of


def finished(config: TrainConfig, folder: Path) -> list[TrainedDictionary] | None:
    """What every dictionary of `config` said at its end; None unless all have come to it.

    That is: the last checkpoint, the dictionary of just this configuration (all of it counts, also
    what `train.status` leaves out) and its validation are there. Whether it was trained on these
    rows is not looked at.
    """
    found = []
    for number, plan in enumerate(planned(config)):
        place = output_folder(folder, number, plan.name)
        entry = _finished(plan.config, place) if _is_whole(plan.config, place) else None
        if entry is None:
            return None
        best = read_best(place / "checkpoints") if config.keep_best else None
        found.append(TrainedDictionary(plan.name, place, *entry, best))
    return found


def _is_whole(config: TrainConfig, place: Path) -> bool:
    if saved_steps(place / "checkpoints")[-1:] != [config.steps] or not (place / WEIGHTS).exists():
        return False
    with suppress(DictionaryError, *NOT_SAID):
        description = read_description(place)
        said = units_of(config, description["hookpoints"]).model_dump(mode="json")
        return bool(description["train"] == said)
    return False


def _finished(config: TrainConfig, place: Path) -> tuple[Evaluation, float] | None:
    """The last validation and dead fraction; None if the log lacks them."""
    last: dict[str, Any] = {}
    try:
        for line in (place / "metrics.jsonl").read_text().splitlines():
            entry = json.loads(line)
            if entry["step"] == config.steps:
                last |= entry
        return Evaluation(**last["validation"]), float(last["dead_fraction"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
