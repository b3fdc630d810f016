"""The loop: reads each batch once and gives it to every dictionary of the run.

Killed at any instant and started again, every dictionary goes on from its own newest checkpoint
(one that is ahead of the others waits for them) and ends with bit-identical weights on the same
machine.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline.errors import ConfigError, DictionaryError
from store.loader import Batch, LoaderOptions, ShuffledLoader
from store.reader import Store
from store.sweep import sweep
from train.artifact import save_dictionary
from train.checkpoint import Progress, load_checkpoint, save_checkpoint, saved_steps
from train.config import TrainConfig
from train.evaluate import Evaluation, evaluate
from train.metrics import MetricsLog
from train.recipe import build_trainee, output_folder
from train.schedule import active_features, learning_rate
from train.trainee import StepMetrics, Trainee

# Settings that change neither the weights nor the order of rows: free to change on resume.
FREE_SETTINGS = {
    "checkpoint_every",
    "device",
    "keep_checkpoints",
    "loader_threads",
    "log_every",
    "recipes",
    "validate_every",
    "validation_rows",
    "wandb",
}


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


@dataclass(frozen=True)
class TrainedDictionary:
    """What a finished run says of one of its dictionaries."""

    recipe: str
    folder: Path
    validation: Evaluation
    dead_fraction: float


OnStep = Callable[[int, str], None]


def train(
    store: Store, config: TrainConfig, folder: Path, on_step: OnStep = lambda done, note: None
) -> list[TrainedDictionary]:
    """Trains every recipe of `config`; `on_step` is told steps done and how they went."""
    device = resolve_device(config.device)
    loader = make_loader(store, config, pin_memory=device.type == "cuda")
    first_batch = loader.read(0)
    trainees = [
        build_trainee(recipe, store, config, first_batch.activations, device)
        for recipe in config.recipes
    ]
    folders = [output_folder(folder, n, recipe) for n, recipe in enumerate(config.recipes)]
    settings = binding_settings(store, config)
    progress = [
        _resume(trainee, place, settings) for trainee, place in zip(trainees, folders, strict=True)
    ]
    last = min(progress, key=lambda begun: begun.step)
    if last.step:
        loader.load_state_dict(last.loader)
    with ExitStack() as stack:
        tracks = [
            Track(
                trainee,
                place,
                stack.enter_context(
                    MetricsLog(place, begun.metrics_bytes, config.wandb, place.name)
                ),
                begun.step,
            )
            for trainee, place, begun in zip(trainees, folders, progress, strict=True)
        ]
        if last.step < config.steps:
            _run_steps(tracks, loader, store, config, settings, on_step)
        return [_finish(track, store, config) for track in tracks]


def resolve_device(name: str) -> torch.device:
    """The device that a configuration names; auto is CUDA where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"train.device: given {name!r}; try auto, cpu or cuda:0") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"train.device: given {name!r}, but this machine has no CUDA device")
    return device


def make_loader(store: Store, config: TrainConfig, pin_memory: bool = False) -> ShuffledLoader:
    """The loader over the training documents."""
    return ShuffledLoader(
        store,
        LoaderOptions(
            batch_rows=config.batch_rows,
            seed=config.seed,
            window_chunks=config.window_chunks,
            validation_fraction=config.validation_fraction,
            threads=config.loader_threads,
            pin_memory=pin_memory,
        ),
    )


def binding_settings(store: Store, config: TrainConfig) -> dict[str, Any]:
    """Everything that the weights depend on, as JSON values."""
    settings = config.model_dump(mode="json", exclude=FREE_SETTINGS)
    return {**settings, "store_fingerprints": store.schema.fingerprints, "store_rows": store.rows}


def _resume(trainee: Trainee, folder: Path, settings: dict[str, Any]) -> Progress:
    """Loads the newest checkpoint of a dictionary; step 0 if there is none."""
    steps = saved_steps(folder / "checkpoints")
    if not steps:
        return Progress(0, {}, 0)
    return load_checkpoint(folder / "checkpoints", steps[-1], trainee, settings)


def _run_steps(
    tracks: list[Track],
    loader: ShuffledLoader,
    store: Store,
    config: TrainConfig,
    settings: dict[str, Any],
    on_step: OnStep,
) -> None:
    logged, clock = loader.batches_taken, time.perf_counter()
    note = ""
    with closing(iter(loader)) as batches:
        for step in range(loader.batches_taken, config.steps):
            batch = next(batches)
            active = [track for track in tracks if track.start <= step]
            results = [track.trainee.step(batch.activations, step) for track in active]
            done = step + 1
            if done % config.log_every == 0 or done == config.steps:
                rate = (done - logged) * config.batch_rows / (time.perf_counter() - clock)
                logged, clock = done, time.perf_counter()
                for track, result in zip(active, results, strict=True):
                    track.log.write(_metrics_line(track, result, step, config, rate))
                note = _note(active[0], results[0])
            if done % config.validate_every == 0 and done < config.steps:
                for track in active:
                    _log_validation(track, store, config, done)
            if done % config.checkpoint_every == 0 or done == config.steps:
                for track in active:
                    progress = Progress(done, loader.state_dict(), track.log.bytes_written)
                    save_checkpoint(
                        track.checkpoints,
                        track.trainee,
                        progress,
                        settings,
                        config.keep_checkpoints,
                    )
            on_step(done, note)


def dead_fraction(trainee: Trainee) -> float:
    """Share of features that have not fired for `dead_after_rows` rows."""
    dead = trainee.rows_since_fired >= trainee.config.dead_after_rows
    return float(dead.double().mean())


def _metrics_line(
    track: Track, result: StepMetrics, step: int, config: TrainConfig, rows_per_second: float
) -> dict[str, Any]:
    hookpoints = track.trainee.dictionary.hookpoints
    loss = float(result.loss)
    if not math.isfinite(loss):
        raise DictionaryError(
            f"{track.folder}: {track.trainee.name}: loss is {loss} at step {step + 1}; "
            f"lower train.lr, delete the folder and train anew"
        )
    return {
        "step": step + 1,
        "rows": (step + 1) * config.batch_rows,
        "loss": loss,
        **{name: float(term) for name, term in result.terms.items()},
        "fve": {h.name: value for h, value in zip(hookpoints, result.fve.tolist(), strict=True)},
        "l0": float(result.l0),
        "dead_fraction": dead_fraction(track.trainee),
        "lr": learning_rate(step, config),
        "k": active_features(step, config),
        "threshold": float(track.trainee.dictionary.threshold),
        "rows_per_second": round(rows_per_second, 1),
    }


def _note(track: Track, result: StepMetrics) -> str:
    fve = " ".join(f"{value:.3f}" for value in result.fve.tolist())
    return (
        f"loss {float(result.loss):.3f} FVE {fve} L0 {float(result.l0):.0f} "
        f"dead {dead_fraction(track.trainee):.1%}"
    )


def _validation_batches(store: Store, config: TrainConfig) -> Iterator[Batch]:
    return sweep(
        store,
        config.batch_rows,
        "validation",
        config.validation_fraction,
        limit=config.validation_rows,
    )


def _log_validation(track: Track, store: Store, config: TrainConfig, step: int) -> Evaluation:
    result = evaluate(track.trainee.dictionary, _validation_batches(store, config))
    track.log.write(
        {"step": step, "validation": {"fve": result.fve, "l0": result.l0, "rows": result.rows}}
    )
    return result


def _finish(track: Track, store: Store, config: TrainConfig) -> TrainedDictionary:
    """Writes and validates the final dictionary; its last checkpoint has been saved."""
    provenance = {
        "recipe": track.trainee.name,
        "train": config.model_dump(mode="json"),
        "store": {"fingerprints": store.schema.fingerprints, "rows": store.rows},
    }
    save_dictionary(track.folder, track.trainee.dictionary, provenance)
    validation = _log_validation(track, store, config, config.steps)
    return TrainedDictionary(
        track.trainee.name, track.folder, validation, dead_fraction(track.trainee)
    )
