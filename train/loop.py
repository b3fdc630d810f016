"""The loop: reads each batch once and gives it to every dictionary of the run.

Killed at any instant and started again, every dictionary goes on from its own newest checkpoint
(one that is ahead of the others waits for them) and, on a store, ends with bit-identical weights
on the same machine.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline.errors import DictionaryError
from store.reader import Store
from train.best import Best
from train.checkpoint import Progress, discard_run, load_checkpoint, saved_steps
from train.config import TrainConfig
from train.device import resolve_device
from train.dictionary.artifact import add_to_description, save_dictionary
from train.evaluate import Evaluation
from train.lock import locked
from train.memory import training_memory
from train.metrics import MetricsLog, NoLog
from train.provenance import figures, predicted, provenance
from train.ranks import ALONE, Ranks
from train.recipes.presets import planned
from train.recipes.recipe import build_trainee, output_folder
from train.source import RowSource, StoreRows
from train.steps import OnStep, Steps
from train.track import Track, dead_fraction
from train.trainee import Trainee

# Settings that change neither the weights nor the order of rows: free to change on resume.
FREE_SETTINGS = {
    "checkpoint_every",
    "cuda_graphs",
    "device",
    "incomplete_store",
    "keep_best",
    "keep_checkpoints",
    "live_buffer_rows",  # a live run says itself how large its buffer is
    "loader_threads",
    "log_every",
    "recipes",
    "skip_bad_batches",
    "sweep",
    "validate_every",
    "validation_rows",
    "verify_chunks",
    "wandb",
}


@dataclass(frozen=True)
class TrainedDictionary:
    """What a finished run says of one of its dictionaries; best: of its checkpoints."""

    recipe: str
    folder: Path
    validation: Evaluation
    dead_fraction: float
    best: Best | None = None


def train(
    store: Store,
    config: TrainConfig,
    folder: Path,
    on_step: OnStep = lambda done, note: None,
    fresh: bool = False,
) -> list[TrainedDictionary]:
    """Trains every dictionary of `config` on a store; as `train_on`."""
    with training_memory(config):
        return train_on(StoreRows(store, config), config, folder, on_step, fresh)


def train_on(
    source: RowSource,
    config: TrainConfig,
    folder: Path,
    on_step: OnStep = lambda done, note: None,
    fresh: bool = False,
    ranks: Ranks = ALONE,
) -> list[TrainedDictionary]:
    """Trains every dictionary of `config`; `on_step` is told steps done and how they went.

    A run that was begun in `folder` is gone on with; `fresh` removes it first, once everything
    else has been checked. Of several ranks, for which `source` must have been made, rank 0 alone
    writes and validates; the others return an empty list.
    """
    device = resolve_device(config.device)
    folders = [output_folder(folder, n, plan.name) for n, plan in enumerate(planned(config))]
    with ExitStack() as locks:
        for place in folders if ranks.main else ():
            locks.enter_context(locked(place))
        return _train_into(folders, source, config, device, on_step, fresh, ranks)


def _train_into(
    folders: list[Path],
    source: RowSource,
    config: TrainConfig,
    device: torch.device,
    on_step: OnStep,
    fresh: bool,
    ranks: Ranks,
) -> list[TrainedDictionary]:
    resumed = not fresh and all(saved_steps(place / "checkpoints") for place in folders)
    first_batch = None if resumed else source.first_batch()
    trainees = [build_trainee(plan, source, first_batch, device, ranks) for plan in planned(config)]
    settings = [binding_settings(source, trainee.config) for trainee in trainees]
    begun = [
        Progress(0, {}, 0) if fresh else _resume(*one)
        for one in zip(trainees, folders, settings, strict=True)
    ]
    _refuse_different_starts(folders[0], [progress.step for progress in begun], ranks)
    last = min(begun, key=lambda progress: progress.step)
    if last.step:
        source.load_state_dict(last.loader)
    with ExitStack() as stack:
        tracks = []
        for trainee, place, bound, progress in zip(trainees, folders, settings, begun, strict=True):
            log = NoLog()
            if ranks.main:
                log = MetricsLog(place, progress.metrics_bytes, config.wandb, place.name)
            tracks.append(Track(trainee, place, stack.enter_context(log), bound))
        for track, progress in zip(tracks, begun, strict=True):
            if fresh and ranks.main:
                discard_run(track.folder)
            track.go_on(progress)
        if last.step < config.steps:
            Steps(tracks, source, config, on_step).run()
        finished = [_finish(track, source) for track in tracks] if ranks.main else []
        ranks.barrier()
        return finished


def binding_settings(source: RowSource, config: TrainConfig) -> dict[str, Any]:
    """Everything that the weights depend on, as JSON values."""
    return {**config.model_dump(mode="json", exclude=FREE_SETTINGS), **source.binding()}


def _resume(trainee: Trainee, folder: Path, settings: dict[str, Any]) -> Progress:
    """Loads the newest checkpoint of a dictionary; step 0 if there is none."""
    steps = saved_steps(folder / "checkpoints")
    if not steps:
        return Progress(0, {}, 0)
    return load_checkpoint(folder / "checkpoints", steps[-1], trainee, settings)


def _refuse_different_starts(folder: Path, steps: list[int], ranks: Ranks) -> None:
    """Raises DictionaryError unless all ranks go on from the same checkpoints."""
    if ranks.size > 1 and len(ranks.gather(torch.tensor(steps)).unique(dim=0)) > 1:
        raise DictionaryError(
            f"{folder}: not every process sees the same checkpoints in it; "
            "name a folder with --out that all machines share"
        )


def _finish(track: Track, source: RowSource) -> TrainedDictionary:
    """Writes and validates the final dictionary; its last checkpoint has been saved.

    The weights are safe before the validation begins, whose figures config.json has in the end.
    """
    name, dictionary = track.trainee.name, track.trainee.dictionary
    said = provenance(name, track.config, dictionary.partition)
    said |= {**predicted(dictionary), **source.provenance()}
    save_dictionary(track.folder, dictionary, said)
    validation = track.validate(source, track.config.steps, lambda: None)
    dead = dead_fraction(track.trainee)
    add_to_description(track.folder, {"figures": figures(validation, dead)})
    return TrainedDictionary(name, track.folder, validation, dead, track.best)
