"""Trains the recipes on a toy store, through the real trainer, and scores what they found.

The recipes of one number of features train in one run on the same batches. Every `points`-th part
of the run leaves a checkpoint, from whose decoders the learning curve is read at the end: that
costs three times the dictionary in bytes per point, until the run's folder is removed. Features
count as alive that fire on 65,536 new rows of the toy model.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import torch

from benchmarks.toy_model import MODELS, ToyModel
from benchmarks.toy_score import ToyScore, cosines_VC, half_step, recall_of, recovered, score
from benchmarks.toy_store import HOOKPOINTS
from store.reader import Store
from train.checkpoint import TENSORS, saved_steps
from train.config import TrainConfig
from train.dictionary.artifact import load_dictionary
from train.dictionary.crosscoder import Crosscoder
from train.loop import TrainedDictionary, train
from train.steps import OnStep

RECIPES = ("batch_topk_crosscoder", "dsf", "dfc", "residual_dfc")
ALIVE_ROWS, ALIVE_SEED = 65_536, 1_000_003


def recipe_entry(recipe: str) -> str | dict[str, object]:
    """What train.recipes says of it: of residuals few features are active, none is shared."""
    if recipe != "residual_dfc":
        return recipe
    return {"recipe": recipe, "k": 1, "exclusive": dict.fromkeys(MODELS, 0.5)}


@dataclass(frozen=True)
class ToyTraining:
    """How dictionaries are trained: on `rows` rows of a store, passed again as `steps` need it.

    exclusive: share of the DFC's features that each model sees alone; auxk, dead_after_rows and
    device: as in the train section (d // 2 dead features a row, its default, would take longer
    than all else at k 8); points: of the learning curve.
    """

    rows: int
    steps: int
    batch_rows: int = 1024
    k: int = 8
    lr: float = 3e-3
    exclusive: float = 0.05
    auxk: int = 32
    dead_after_rows: int = 50_000
    points: int = 20
    recipes: tuple[str, ...] = RECIPES
    device: str = "auto"

    def recipes_for(self, widths: tuple[int, int]) -> tuple[str, ...]:
        """Without dsf, which ties decoders, where widths differ."""
        return tuple(r for r in self.recipes if r != "dsf" or widths[0] == widths[1])

    def config(self, features: int, seed: int, widths: tuple[int, int]) -> TrainConfig:
        """The trainer's configuration: schedules as shares of the steps."""
        steps = self.steps
        return TrainConfig.model_validate(
            {
                "recipes": [recipe_entry(recipe) for recipe in self.recipes_for(widths)],
                "features": features,
                "exclusive": dict.fromkeys(MODELS, self.exclusive),
                "k": self.k,
                "lr": self.lr,
                "auxk": self.auxk,
                "steps": steps,
                "batch_rows": self.batch_rows,
                "seed": seed,
                "warmup_steps": min(100, steps // 10),
                "decay_start": steps * 4 // 5,
                "threshold_start": steps // 2,
                "threshold_beta": 0.99,
                "dead_after_rows": self.dead_after_rows,
                "validation_rows": min(32_768, self.rows),
                "validate_every": steps,
                "log_every": min(100, steps),
                "checkpoint_every": max(1, steps // self.points),
                "keep_checkpoints": steps,
                "keep_best": False,
                "device": self.device,
            }
        )


@dataclass(frozen=True)
class CurvePoint:
    """Shares of the concepts that the decoders recover after so many steps."""

    step: int
    exclusive: float | None
    shared: float | None


@dataclass(frozen=True)
class ToyResult:
    """What one trained dictionary came to; half_step: see toy_score, of exclusive concepts.

    dead: share of the features that fired on none of the rows that were looked at.
    """

    seed: int
    features: int
    recipe: str
    fve_a: float | None
    fve_b: float | None
    l0: float | None
    dead: float
    score: ToyScore
    half_step: int | None
    curve: tuple[CurvePoint, ...]


def train_and_score(
    toy: ToyModel,
    store: Store,
    training: ToyTraining,
    features: int,
    folder: Path,
    on_step: OnStep = lambda done, note: None,
) -> list[ToyResult]:
    """One result per recipe. A run that was cut short in `folder` goes on where it was."""
    config = training.config(features, toy.spec.seed, toy.spec.widths)
    trained = train(store, config, folder / "dictionary", on_step)
    sample = toy.sample(ALIVE_ROWS, ALIVE_SEED).x_BD
    rows = {name: sample[model] for name, model in zip(HOOKPOINTS, MODELS, strict=True)}
    results = [_result(one, toy, rows, features) for one in trained]
    shutil.rmtree(folder)
    return results


def _result(
    one: TrainedDictionary, toy: ToyModel, rows: dict[str, torch.Tensor], features: int
) -> ToyResult:
    dictionary = load_dictionary(one.folder)
    alive = fired(dictionary, rows)
    curve = learning_curve(one.folder / "checkpoints", toy)
    exclusive = [point.exclusive or 0.0 for point in curve]
    return ToyResult(
        seed=toy.spec.seed,
        features=features,
        recipe=one.recipe,
        fve_a=one.validation.fve[HOOKPOINTS[0]],
        fve_b=one.validation.fve[HOOKPOINTS[1]],
        l0=one.validation.l0,
        dead=float(1 - alive.mean()),
        score=score(dictionary, toy, alive),
        half_step=half_step([point.step for point in curve], exclusive),
        curve=curve,
    )


def fired(dictionary: Crosscoder, rows: dict[str, torch.Tensor], batch: int = 4096) -> np.ndarray:
    """Features that fire on some of these rows, hookpoint -> (B, D); bool (F,)."""
    alive = torch.zeros(dictionary.partition.features, dtype=torch.bool)
    count = len(next(iter(rows.values())))
    for start in range(0, count, batch):
        part = {name: x_BD[start : start + batch] for name, x_BD in rows.items()}
        alive[dictionary.encode(part).pattern.columns.cpu()] = True
    return alive.numpy()


def learning_curve(checkpoints: Path, toy: ToyModel) -> tuple[CurvePoint, ...]:
    """What the decoders of each checkpoint recover, in the order of steps."""
    points = []
    for step in saved_steps(checkpoints):
        with safetensors.safe_open(checkpoints / f"step_{step:08d}" / TENSORS, "pt") as tensors:
            cosines = {
                model: cosines_VC(tensors.get_tensor(f"model.W_dec.{n}"), toy.concepts(model))
                for n, model in enumerate(MODELS)
            }
        recall = recall_of(recovered(cosines), toy.owner)
        points.append(CurvePoint(step, recall.exclusive, recall.shared))
    return tuple(points)
