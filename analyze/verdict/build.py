"""The verdict of a dictionary: its evidence, its nulls, each swept once and kept on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from torch import Tensor

from analyze.config import AnalyzeConfig
from analyze.norms import model_pair
from analyze.null.noise import blurring
from analyze.null.pair import NullPair, null_pair
from analyze.null.train import null_config, train_null
from analyze.pairing import hookpoint_pairs
from analyze.subject import Subject
from analyze.sweep.accumulator import Accumulator
from analyze.sweep.gather import gather
from analyze.verdict.evidence import Sums, evidence_table, fresh_sums
from analyze.verdict.judge import judge, smallest_p
from analyze.verdict.nulls import copy_null, shared_null
from analyze.verdict.steering import Steer, with_steering, without_steering
from train.steps import OnStep

SweepInto = Callable[[Subject, Sequence[Accumulator], Path], None]
TrainBar = Callable[[int, int], AbstractContextManager[OnStep]]


def _no_bar(run: int, steps: int) -> AbstractContextManager[OnStep]:
    return nullcontext(lambda done, note: None)


@dataclass(frozen=True)
class Verdict:
    """table: a line per candidate; evidence: a line per feature; nulls: what p-values are of."""

    table: pl.DataFrame
    evidence: pl.DataFrame
    nulls: dict[str, pl.DataFrame]
    smallest_p: float


def exclusivity(
    subject: Subject,
    config: AnalyzeConfig,
    folder: Path,
    sweep_into: SweepInto | None = None,
    train_bar: TrainBar = _no_bar,
    steer: Steer | None = None,
) -> Verdict:
    """Judges every candidate of a dictionary.

    folder: of the analysis; nulls lie in its folder `null`. sweep_into(subject, accumulators,
    place) fills accumulators, None: without a bar; train_bar(run, steps) yields what is told of a
    training's steps; steer: gives what steering shows of features, None: nothing. Raises
    DictionaryError or ConfigError where a null that is asked for cannot be had, and as `steer`.
    """

    def quietly(of: Subject, accumulators: Sequence[Accumulator], place: Path) -> None:
        gather(of, accumulators, config.batch_rows, place)

    sweep_into = sweep_into or quietly
    sums = fresh_sums(subject, config.batch_rows)
    sweep_into(subject, sums.all, folder / "sweep")
    evidence = evidence_table(subject, sums, config)
    nulls: dict[str, pl.DataFrame] = {}
    models = model_pair(subject.dictionary)
    if "copy" in config.nulls:
        noise = blurring(subject, sums.moments) if config.null_noise else None
        tables = [
            _null_table(subject, config, run, noise, folder, sweep_into, train_bar)
            for run in range(config.null_runs)
        ]
        nulls["copy"] = copy_null(tables, models, len(hookpoint_pairs(subject.dictionary)))
    if "shared" in config.nulls:
        nulls["shared"] = shared_null(evidence, models)
    if steer is not None:
        found = with_steering(evidence, nulls, config, steer)
        if found is None:
            config = without_steering(config)
        else:
            evidence, nulls["steered"] = found
    judged = judge(evidence, nulls, config)
    return Verdict(judged, evidence, nulls, smallest_p(nulls, config))


def _null_table(
    subject: Subject,
    config: AnalyzeConfig,
    run: int,
    noise: Tensor | None,
    folder: Path,
    sweep_into: SweepInto,
    train_bar: TrainBar,
) -> pl.DataFrame:
    """The evidence of a dictionary trained on a pair without differences."""
    pair: NullPair = null_pair(subject.dictionary, run, noise)
    place = folder / "null" / str(run)
    training = null_config(subject, run, config.null_share, config.device)
    with train_bar(run, training.steps) as on_step:
        null = train_null(subject, pair, training, place, on_step)
    sums: Sums = fresh_sums(null, config.batch_rows)
    sweep_into(null, sums.all, place / "sweep")
    table = evidence_table(null, sums, config)
    return table if null.dictionary.prediction is None else of_the_base(table, pair.model)


def of_the_base(table: pl.DataFrame, base: str) -> pl.DataFrame:
    """Of a null of residuals, the features that are a null: those of what the base has.

    The copy's noise is the copy's alone, and residuals are of little else: there are features of it
    on the copy's side, and of its mirror image on the base's, which are read from the copy better
    than from the base. They are one model's alone indeed.
    """
    return table.filter((pl.col("claimed_for") == base) & (pl.col("readout_ratio") <= 1))
