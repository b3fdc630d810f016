"""What a training run would cost, before it starts: rows, epochs, parameters, bytes, time."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from store.reader import Store
from store.window import window_bytes
from train.config import TrainConfig
from train.device import resolve_device
from train.loop import make_loader
from train.recipe import build_trainee

TIMED_STEPS = 4
ADAM_COPIES = 3  # weights and two moments


@dataclass(frozen=True)
class TrainPlan:
    """Rows are those of the training documents; checkpoint_bytes counts what is kept on disk.

    window_bytes: memory (of the page cache, where chunks are mapped) that the shuffle goes over.
    """

    folder: Path
    rows_per_epoch: int
    rows_trained: int
    parameters: int
    checkpoint_bytes: int
    window_bytes: int
    seconds: float

    @property
    def epochs(self) -> float:
        """Times that every row is seen."""
        return self.rows_trained / self.rows_per_epoch


def plan(store: Store, config: TrainConfig, folder: Path) -> TrainPlan:
    """Times a few real steps, writes nothing."""
    device = resolve_device(config.device)
    loader = make_loader(store, config, device)
    trainees = [
        build_trainee(recipe, store, config, loader.read(0).activations, device)
        for recipe in config.recipes
    ]
    seconds = 0.0
    for step in range(TIMED_STEPS):
        begin = time.perf_counter()
        batch = loader.read(step)
        for trainee in trainees:
            float(trainee.step(batch.activations, step).loss)
        seconds = time.perf_counter() - begin
    parameters = sum(p.numel() for t in trainees for p in t.dictionary.parameters())
    return TrainPlan(
        folder,
        loader.rows_per_epoch,
        config.steps * config.batch_rows,
        parameters,
        4 * parameters * (1 + ADAM_COPIES * config.keep_checkpoints),
        window_bytes(store, config.window_chunks),
        seconds * config.steps,
    )
