"""What a training run would cost, before it starts: rows, epochs, parameters, bytes, time."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from train.config import TrainConfig
from train.device import resolve_device
from train.memory import training_memory
from train.recipes.presets import Planned, planned
from train.recipes.recipe import build_trainee, output_folder
from train.source import RowSource
from train.trainee import Trainee

TIMED_STEPS = 4
ADAM_COPIES = 3  # weights and two moments


@dataclass(frozen=True)
class PlannedDictionary:
    """One dictionary of a run; bytes in memory, of the optimizer's moments besides the weights."""

    name: str
    recipe: str
    folder: Path
    features: int
    parameters: int
    weight_bytes: int
    optimizer_bytes: int


@dataclass(frozen=True)
class TrainPlan:
    """Rows are those of the training documents; checkpoint_bytes counts what is kept on disk.

    rows_per_epoch: None where it is not known; shuffle_bytes: memory (of the page cache, where
    chunks of a store are mapped) that the shuffle goes over; seconds: of all; harvest_rows and
    harvest_seconds: what of it the models take to give rows, where there is no store.
    """

    folder: Path
    rows_per_epoch: int | None
    rows_trained: int
    parameters: int
    checkpoint_bytes: int
    shuffle_bytes: int
    seconds: float
    harvest_rows: int = 0
    harvest_seconds: float = 0.0
    dictionaries: tuple[PlannedDictionary, ...] = ()


def plan(source: RowSource, config: TrainConfig, folder: Path) -> TrainPlan:
    """Times a few real steps, while rows are read ahead of them; writes nothing."""
    device = resolve_device(config.device)
    plans = planned(config)
    with training_memory(config):
        first_batch = source.first_batch()
        trainees = [build_trainee(one, source, first_batch, device) for one in plans]
        seconds = _last_step_seconds(source, trainees)
    dictionaries = tuple(
        _sized(one, trainee, output_folder(folder, number, one.name))
        for number, (one, trainee) in enumerate(zip(plans, trainees, strict=True))
    )
    parameters = sum(one.parameters for one in dictionaries)
    return TrainPlan(
        folder,
        source.rows_per_epoch,
        config.steps * config.batch_rows,
        parameters,
        4 * parameters * (1 + ADAM_COPIES * checkpoints_kept(config)),
        source.memory_bytes,
        seconds * config.steps,
        dictionaries=dictionaries,
    )


def _last_step_seconds(source: RowSource, trainees: list[Trainee]) -> float:
    seconds = 0.0
    with closing(iter(source)) as batches:
        for step in range(TIMED_STEPS):
            batch = next(batches)
            begin = time.perf_counter()
            for trainee in trainees:
                float(trainee.step(batch.activations, step).loss)
            seconds = time.perf_counter() - begin
    return seconds


def _sized(one: Planned, trainee: Trainee, folder: Path) -> PlannedDictionary:
    """A dictionary that has done a step, so that its optimizer has what it will have."""
    dictionary, states = trainee.dictionary, trainee.optimizer.state.values()
    return PlannedDictionary(
        one.name,
        one.recipe,
        folder,
        dictionary.partition.features,
        sum(p.numel() for p in dictionary.parameters()),
        sum(p.nbytes for p in dictionary.parameters()),
        sum(v.nbytes for state in states for v in state.values() if isinstance(v, Tensor)),
    )


def checkpoints_kept(config: TrainConfig) -> int:
    """The newest ones, and the best if it may be none of them."""
    validates = config.validation_fraction > 0 and config.validate_every < config.steps
    return config.keep_checkpoints + (config.keep_best and validates)
