"""Which checkpoint is the best: that of the lowest held-out loss.

The loss is `Evaluation.loss`: the mean over held-out rows of the squared error of the
reconstruction, in inference mode and scaled units, summed over hookpoints. Of equal ones the first
is the best. `checkpoints/best.json` names its step; every checkpoint knows it too, and is what a
resumed run believes.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from store.files import write_json
from train.checkpoint import saved_steps

MARKER = "best.json"


@dataclass(frozen=True)
class Best:
    """A step and its held-out loss."""

    step: int
    loss: float


def is_better(loss: float | None, best: Best | None) -> bool:
    """Whether this held-out loss is the lowest so far; without held-out rows there is none."""
    return loss is not None and math.isfinite(loss) and (best is None or loss < best.loss)


def best_from(value: dict[str, Any] | None, checkpoints: Path) -> Best | None:
    """What a checkpoint or the marker says; None if the checkpoint that it names is gone."""
    if value is None:
        return None
    best = Best(int(value["step"]), float(value["loss"]))
    return best if best.step in saved_steps(checkpoints) else None


def write_best(checkpoints: Path, best: Best | None) -> None:
    """Writes the marker, or removes it, if it does not say this already."""
    if best is None:
        (checkpoints / MARKER).unlink(missing_ok=True)
    elif read_best(checkpoints) != best:
        write_json(checkpoints / MARKER, asdict(best))


def read_best(checkpoints: Path) -> Best | None:
    """What the marker says; None if there is none, or none of a checkpoint that is there."""
    try:
        return best_from(json.loads((checkpoints / MARKER).read_bytes()), checkpoints)
    except (OSError, ValueError, KeyError, TypeError):
        return None
