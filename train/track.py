"""A dictionary of a run with its folder and log, and what is written about it on the way."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import DictionaryError
from train.checkpoint import Progress, save_checkpoint, saved_steps
from train.config import TrainConfig
from train.metrics import MetricsLog
from train.recipes.schedule import active_features, learning_rate
from train.source import RowSource
from train.trainee import StepMetrics, Trainee

FVE_IN_A_LINE = 4  # hookpoints


@dataclass(frozen=True)
class Track:
    """One dictionary of the run with its folder, its log and the steps it had done before."""

    trainee: Trainee
    folder: Path
    log: MetricsLog
    start: int

    @property
    def checkpoints(self) -> Path:
        """Where its checkpoints lie."""
        return self.folder / "checkpoints"


def save(
    tracks: list[Track],
    source: RowSource,
    config: TrainConfig,
    settings: dict[str, Any],
    done: int,
) -> None:
    """Writes a checkpoint of each of these dictionaries that has none of this step."""
    for track in tracks:
        if done not in saved_steps(track.checkpoints):
            progress = Progress(done, source.state_dict(), track.log.bytes_written)
            save_checkpoint(
                track.checkpoints, track.trainee, progress, settings, config.keep_checkpoints
            )


def refuse_divergence(
    track: Track, result: StepMetrics, source: RowSource, since: int, done: int
) -> None:
    """Raises DictionaryError if the loss is not finite.

    Batches since the last line are looked at again, to tell damaged rows from too high a rate.
    """
    loss = float(result.loss)
    if math.isfinite(loss):
        return
    damage = source.damage(since, done)
    if damage is not None:
        raise DictionaryError(f"{damage}, then delete {track.folder} and train anew")
    raise DictionaryError(
        f"{track.folder}: {track.trainee.name}: loss is {loss} at step {done}; "
        f"lower train.lr, delete the folder and train anew"
    )


def dead_fraction(trainee: Trainee) -> float:
    """Share of features that have not fired for `dead_after_rows` rows."""
    dead = trainee.rows_since_fired >= trainee.config.dead_after_rows
    return float(dead.double().mean())


def metrics_line(
    track: Track, result: StepMetrics, step: int, config: TrainConfig, rows_per_second: float
) -> dict[str, Any]:
    """One line of metrics.jsonl; the device is waited for here."""
    hookpoints = track.trainee.dictionary.hookpoints
    return {
        "step": step + 1,
        "rows": (step + 1) * config.batch_rows,
        "loss": float(result.loss),
        **{name: float(term) for name, term in result.terms.items()},
        "fve": {h.name: value for h, value in zip(hookpoints, result.fve.tolist(), strict=True)},
        "l0": float(result.l0),
        "dead_fraction": dead_fraction(track.trainee),
        "lr": learning_rate(step, config),
        "k": active_features(step, config),
        "threshold": float(track.trainee.dictionary.threshold),
        "rows_per_second": round(rows_per_second, 1),
    }


def progress_note(track: Track, result: StepMetrics) -> str:
    """The last loss, FVE, L0 and dead fraction, for the progress bar.

    FVE is that of each hookpoint, or mean and minimum if they are too many for a line.
    """
    values = result.fve.tolist()
    fve = " ".join(f"{value:.3f}" for value in values)
    if len(values) > FVE_IN_A_LINE:
        fve = f"{sum(values) / len(values):.3f} min {min(values):.3f}"
    return (
        f"loss {float(result.loss):.4g} FVE {fve} L0 {float(result.l0):.0f} "
        f"dead {dead_fraction(track.trainee):.1%}"
    )
