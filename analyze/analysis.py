"""Analyses one dictionary: sweep, norms table, claims."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from analyze.config import AnalyzeConfig, check_models
from analyze.exclusive import (
    Claim,
    PlantedCount,
    check_planted_labels,
    claims,
    planted_counts,
)
from analyze.norms import model_pair
from analyze.norms_table import norms_table
from analyze.statistics.firing import Firing
from analyze.statistics.kept_rows import KeptRows
from analyze.statistics.reconstruction import Reconstruction
from analyze.subject import Subject
from analyze.sweep.gather import OnRows, gather
from store.reader import Store
from train.dictionary.crosscoder import Crosscoder


@dataclass(frozen=True)
class Analysis:
    """What every report of a dictionary begins with."""

    subject: Subject
    firing: Firing
    top: KeptRows
    reconstruction: Reconstruction
    table: pl.DataFrame
    claims: list[Claim]
    planted: list[PlantedCount]

    @property
    def store(self) -> Store:
        """The rows."""
        return self.subject.store

    @property
    def dictionary(self) -> Crosscoder:
        """The dictionary."""
        return self.subject.dictionary

    @property
    def folder(self) -> Path:
        """The dictionary's."""
        return self.subject.folder

    @property
    def recipe(self) -> str:
        """What it was trained as."""
        return self.subject.recipe

    @property
    def models(self) -> tuple[str, str]:
        """The two models compared."""
        return model_pair(self.dictionary)

    @property
    def fve(self) -> dict[str, float | None]:
        """FVE on held-out documents per model; per hookpoint if a model has several."""
        found, hookpoints = self.reconstruction.fve(), self.dictionary.hookpoints
        single = len({hookpoint.model for hookpoint in hookpoints}) == len(hookpoints)
        return {h.model if single else h.name: found[h.name] for h in hookpoints if h.writes}

    @property
    def l0(self) -> float | None:
        """Mean active features per row of held-out documents."""
        return self.reconstruction.l0()

    @property
    def held_out_rows(self) -> int:
        """Rows of held-out documents."""
        return self.reconstruction.rows()

    @property
    def dead_fraction(self) -> dict[str, float]:
        """Per model: share of the features it sees that fire on no row of the store."""
        dead = (self.table["fires"] == 0).to_numpy()
        fractions = {}
        for model in self.models:
            seen = [dead[run] for run in self.dictionary.partition.visible(model)]
            fractions[model] = sum(int(d.sum()) for d in seen) / sum(len(d) for d in seen)
        return fractions


def analyze(
    subject: Subject,
    config: AnalyzeConfig,
    folder: Path | None = None,
    on_rows: OnRows = lambda rows: None,
) -> Analysis:
    """One sweep over the rows; folder: where its sums are kept, None: nowhere."""
    check_models(config.planted, model_pair(subject.dictionary))
    check_planted_labels(config.planted, subject.labels.names)
    firing = Firing(subject.features, subject.labels)
    top = KeptRows("top", subject.features, config.contexts)
    reconstruction = Reconstruction(subject)
    gather(subject, [firing, top, reconstruction], config.batch_rows, folder, on_rows)
    table = norms_table(subject.dictionary, firing, config)
    found = claims(subject.dictionary, table, config.top_features, config.min_fires)
    planted = planted_counts(found, firing, config.planted, config.planted_ratio)
    return Analysis(subject, firing, top, reconstruction, table, found, planted)
