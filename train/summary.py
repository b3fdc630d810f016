"""What `train run` prints of a run, and of one that has not begun."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from train.config import TrainConfig

if TYPE_CHECKING:  # importing torch would make --help slow
    from train.loop import TrainedDictionary
    from train.plan import PlannedDictionary, TrainPlan


def summary(entry: TrainedDictionary) -> str:
    """One line on a trained dictionary, and one per hookpoint if they are many."""
    from train.lines import FVE_IN_A_LINE

    validation = entry.validation
    begin, dead = f"{entry.folder}: {entry.recipe}", f"dead {entry.dead_fraction:.1%}"
    if validation.l0 is None:
        held_out = "no held-out rows"
    else:
        fve = [
            f"{name} (no variance)" if value is None else f"{name} {value:.3f}"
            for name, value in validation.fve.items()
        ]
        if len(fve) > FVE_IN_A_LINE:
            lines = "".join(f"\n  {one}" for one in fve)
            return f"{begin}: L0 {validation.l0:.1f}; {dead}; held-out FVE:{lines}{_best(entry)}"
        held_out = f"held-out FVE {', '.join(fve)}; L0 {validation.l0:.1f}"
    return f"{begin}: {held_out}; {dead}{_best(entry)}"


def _best(entry: TrainedDictionary) -> str:
    """A line on the best checkpoint, if the last one, which the dictionary is of, is not it."""
    best = entry.best
    if best is None or entry.validation.loss is None or best.loss >= entry.validation.loss:
        return ""
    return (
        f"\n  the held-out loss was lowest at step {best.step:,}: {best.loss:.4g}, now "
        f"{entry.validation.loss:.4g}; kept as {entry.folder}/checkpoints/step_{best.step:08d}"
    )


def as_json(entry: TrainedDictionary) -> dict[str, Any]:
    """The same as JSON values."""
    return {
        "recipe": entry.recipe,
        "folder": str(entry.folder),
        "fve": entry.validation.fve,
        "l0": entry.validation.l0,
        "loss": entry.validation.loss,
        "dead_fraction": entry.dead_fraction,
        "best": None if entry.best is None else asdict(entry.best),
    }


def print_plan(expected: TrainPlan, section: TrainConfig, as_json: bool) -> None:
    """Prints what a run would cost."""
    if as_json:
        print(json.dumps(asdict(expected), indent=2, default=str))
        return
    per_epoch, trained = expected.rows_per_epoch, expected.rows_trained
    epochs = f" ({trained / per_epoch:.1f} epochs of {per_epoch:,})" if per_epoch else ""
    for one in expected.dictionaries:
        print(
            f"{one.folder}: {_named(one)}: {one.features:,} features, {one.parameters:,} "
            f"parameters; {_megabytes(one.weight_bytes)} of weights, "
            f"{_megabytes(one.optimizer_bytes)} of optimizer"
        )
    several = len(expected.dictionaries) > 1
    print(
        f"would train {'each' if several else 'it'} for {section.steps:,} steps of "
        f"{section.batch_rows:,} rows = {trained:,} rows{epochs}"
    )
    harvest = (
        f", {expected.harvest_seconds / 60:,.1f} of them to harvest {expected.harvest_rows:,} rows"
        if expected.harvest_rows
        else ""
    )
    print(
        f"{expected.parameters:,} parameters; about {expected.checkpoint_bytes / 1e6:,.0f} MB "
        f"under {expected.folder}; about {expected.seconds / 60:,.1f} minutes here{harvest}"
    )
    print(f"the loader shuffles over {expected.shuffle_bytes / 1e9:,.1f} GB of memory at a time")


def _named(one: PlannedDictionary) -> str:
    """Its name, with its recipe unless it is called like it."""
    return one.name if one.name == one.recipe else f"{one.name} ({one.recipe})"


def _megabytes(count: int) -> str:
    """Bytes for reading: 0.01 MB, 12.3 MB, 1,234 MB."""
    size = count / 1e6
    return f"{size:,.2f} MB" if size < 1 else f"{size:,.1f} MB" if size < 100 else f"{size:,.0f} MB"
