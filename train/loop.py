"""The loop: reads each batch once and gives it to every dictionary of the run.

Killed at any instant and started again, every dictionary goes on from its own newest checkpoint
(one that is ahead of the others waits for them) and, on a store, ends with bit-identical weights
on the same machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from store.reader import Store
from train.checkpoint import Progress, load_checkpoint, saved_steps
from train.config import TrainConfig
from train.device import resolve_device
from train.dictionary.artifact import save_dictionary
from train.evaluate import Evaluation, evaluate
from train.interrupt import postponed_interrupt
from train.lock import locked
from train.metrics import MetricsLog
from train.recipes.recipe import build_trainee, output_folder
from train.source import RowSource, StoreRows
from train.track import (
    Track,
    dead_fraction,
    metrics_line,
    progress_note,
    refuse_divergence,
    save,
)
from train.trainee import Trainee

# Settings that change neither the weights nor the order of rows: free to change on resume.
FREE_SETTINGS = {
    "checkpoint_every",
    "device",
    "keep_checkpoints",
    "live_buffer_rows",  # a live run says itself how large its buffer is
    "loader_threads",
    "log_every",
    "recipes",
    "validate_every",
    "validation_rows",
    "verify_chunks",
    "wandb",
}


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
    """Trains every recipe of `config` on a store; as `train_on`."""
    return train_on(StoreRows(store, config), config, folder, on_step)


def train_on(
    source: RowSource, config: TrainConfig, folder: Path, on_step: OnStep = lambda done, note: None
) -> list[TrainedDictionary]:
    """Trains every recipe of `config`; `on_step` is told steps done and how they went."""
    device = resolve_device(config.device)
    folders = [output_folder(folder, n, recipe) for n, recipe in enumerate(config.recipes)]
    with ExitStack() as locks:
        for place in folders:
            locks.enter_context(locked(place))
        return _train_into(folders, source, config, device, on_step)


def _train_into(
    folders: list[Path],
    source: RowSource,
    config: TrainConfig,
    device: torch.device,
    on_step: OnStep,
) -> list[TrainedDictionary]:
    resumed = all(saved_steps(place / "checkpoints") for place in folders)
    first_batch = None if resumed else source.first_batch()
    trainees = [
        build_trainee(recipe, source, config, first_batch, device) for recipe in config.recipes
    ]
    settings = binding_settings(source, config)
    progress = [
        _resume(trainee, place, settings) for trainee, place in zip(trainees, folders, strict=True)
    ]
    last = min(progress, key=lambda begun: begun.step)
    if last.step:
        source.load_state_dict(last.loader)
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
            _run_steps(tracks, source, config, settings, on_step)
        return [_finish(track, source, config) for track in tracks]


def binding_settings(source: RowSource, config: TrainConfig) -> dict[str, Any]:
    """Everything that the weights depend on, as JSON values."""
    return {**config.model_dump(mode="json", exclude=FREE_SETTINGS), **source.binding()}


def _resume(trainee: Trainee, folder: Path, settings: dict[str, Any]) -> Progress:
    """Loads the newest checkpoint of a dictionary; step 0 if there is none."""
    steps = saved_steps(folder / "checkpoints")
    if not steps:
        return Progress(0, {}, 0)
    return load_checkpoint(folder / "checkpoints", steps[-1], trainee, settings)


def _run_steps(
    tracks: list[Track],
    source: RowSource,
    config: TrainConfig,
    settings: dict[str, Any],
    on_step: OnStep,
) -> None:
    logged, clock = source.batches_taken, time.perf_counter()
    note = ""
    with closing(iter(source)) as batches, postponed_interrupt() as raise_if_interrupted:
        for step in range(source.batches_taken, config.steps):
            batch = next(batches)
            active = [track for track in tracks if track.start <= step]
            results = [track.trainee.step(batch.activations, step) for track in active]
            done = step + 1
            if done % config.log_every == 0 or done == config.steps:
                rate = (done - logged) * config.batch_rows / (time.perf_counter() - clock)
                since, logged, clock = logged, done, time.perf_counter()
                for track, result in zip(active, results, strict=True):
                    refuse_divergence(track, result, source, since, done)
                    track.log.write(metrics_line(track, result, step, config, rate))
                note = progress_note(active[0], results[0])
            if done % config.validate_every == 0 and done < config.steps:
                for track in active:
                    _log_validation(track, source, done)
            if done % config.checkpoint_every == 0 or done == config.steps:
                save(active, source, config, settings, done)
            try:
                on_step(done, note)
                raise_if_interrupted()
            except KeyboardInterrupt:
                save(active, source, config, settings, done)
                raise


def _log_validation(track: Track, source: RowSource, step: int) -> Evaluation:
    result = evaluate(track.trainee.dictionary, source.validation())
    track.log.write(
        {"step": step, "validation": {"fve": result.fve, "l0": result.l0, "rows": result.rows}}
    )
    return result


def _finish(track: Track, source: RowSource, config: TrainConfig) -> TrainedDictionary:
    """Writes and validates the final dictionary; its last checkpoint has been saved."""
    provenance = {
        "recipe": track.trainee.name,
        "train": config.model_dump(mode="json"),
        **source.provenance(),
    }
    save_dictionary(track.folder, track.trainee.dictionary, provenance)
    validation = _log_validation(track, source, config.steps)
    return TrainedDictionary(
        track.trainee.name, track.folder, validation, dead_fraction(track.trainee)
    )
