"""How far a training run is, dictionary by dictionary: read from its files, while it runs too.

A run that is going on holds the lock beside its folder; where a network file system does not share
locks between machines it looks stopped, but `silent_seconds` says when it last logged.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.errors import DictionaryError, StoreError
from store.reader import Store
from train.checkpoint import FOLLOWING, saved_steps
from train.config import TrainConfig
from train.dictionary.artifact import WEIGHTS, read_description
from train.lock import is_locked
from train.loop import FREE_SETTINGS
from train.recipes.presets import Planned, planned
from train.recipes.recipe import output_folder
from train.recipes.units import NOT_SAID, units_of
from train.source import store_provenance

State = Literal["complete", "running", "stopped", "not begun", "outdated"]
TAIL_BYTES = 1 << 16


@dataclass(frozen=True)
class DictionaryStatus:
    """One dictionary; figures as it last logged them, None where it did not.

    step: the last that was logged or saved; saved_step: that of the newest checkpoint; reason: of
    an outdated one, what it was made from that is another now.
    """

    name: str
    folder: str
    state: State
    step: int
    steps: int
    saved_step: int
    rows_per_second: float | None
    seconds_left: float | None
    silent_seconds: float | None
    loss: float | None
    reason: str | None


@dataclass(frozen=True)
class TrainStatus:
    """All dictionaries of a run; complete: each is there, made by this configuration and store."""

    folder: str
    complete: bool
    dictionaries: list[DictionaryStatus]


def status(config: TrainConfig, folder: Path, store: Path | None = None) -> TrainStatus:
    """Reads what lies in the folders of a run. Raises ConfigError.

    store: whose rows they must have been trained on to count as complete; None, or where there is
    none, leaves that open.
    """
    rows = _provenance(store)
    found = [
        _dictionary(plan, output_folder(folder, number, plan.name), rows)
        for number, plan in enumerate(planned(config))
    ]
    return TrainStatus(str(folder), all(one.state == "complete" for one in found), found)


def _provenance(path: Path | None) -> dict[str, Any] | None:
    if path is None:
        return None
    try:
        return store_provenance(Store(path))
    except StoreError:
        return None


def _dictionary(plan: Planned, folder: Path, rows: dict[str, Any] | None) -> DictionaryStatus:
    saved = (saved_steps(folder / "checkpoints") or [0])[-1]
    log = folder / "metrics.jsonl"
    last, silent = _last_line(log), None
    with suppress(OSError):
        silent = max(0.0, time.time() - log.stat().st_mtime)
    step = max(saved, int(last.get("step") or 0))
    state, reason = _state(plan.config, folder, saved, rows)
    rate = last.get("rows_per_second")
    left = None
    if state == "running" and rate:
        left = (plan.config.steps - step) * plan.config.batch_rows / rate
    return DictionaryStatus(
        name=plan.name,
        folder=str(folder),
        state=state,
        step=step,
        steps=plan.config.steps,
        saved_step=saved,
        rows_per_second=rate,
        seconds_left=left,
        silent_seconds=silent,
        loss=last.get("loss"),
        reason=reason,
    )


def _state(
    config: TrainConfig, folder: Path, saved: int, rows: dict[str, Any] | None
) -> tuple[State, str | None]:
    if is_locked(folder):
        return "running", None
    description = None
    if (folder / WEIGHTS).exists():
        with suppress(DictionaryError):
            description = read_description(folder)
    if description is None or "figures" not in description:  # those come last
        return ("stopped" if saved else "not begun"), None
    reason = difference(config, description, rows)
    return ("complete", None) if reason is None else ("outdated", reason)


def difference(
    config: TrainConfig, description: dict[str, Any], rows: dict[str, Any] | None
) -> str | None:
    """The first thing that a dictionary was made from that is another now; None if all is the same.

    Settings that change neither weights nor rows do not count, nor does one that the dictionary,
    being older, does not know. rows: see `store_provenance`; None: not compared.
    """
    try:
        now = units_of(config, description["hookpoints"])
        had = dict(description["train"])
    except NOT_SAID:
        return "it does not say how it was trained"
    have = now.model_dump(mode="json", exclude=FREE_SETTINGS)
    for key in sorted(have.keys() & had.keys(), key=lambda key: (key in FOLLOWING, key)):
        if have[key] != had[key]:
            return f"train.{key} was {had[key]!r}, now {have[key]!r}"
    if rows is not None and description.get("store") != rows["store"]:
        return "the store holds other rows"
    return None


def _last_line(log: Path) -> dict[str, Any]:
    """The last line of metrics with a rate: of a step, not of a validation."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL_BYTES))
            lines = file.read().splitlines()
    except OSError:
        return {}
    for line in reversed(lines):
        with suppress(ValueError):
            found = json.loads(line)
            if isinstance(found, dict) and "rows_per_second" in found:
                return found
    return {}
