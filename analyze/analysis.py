"""Analyses one dictionary: sweep, norms table, claims; and writes tables and plots."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from analyze.config import AnalyzeConfig, check_models
from analyze.exclusive import (
    Claim,
    PlantedCount,
    check_planted_labels,
    claims,
    planted_counts,
)
from analyze.labels import read_labels
from analyze.norms import model_pair, norms_table
from analyze.plots import histogram_figure, histogram_png
from analyze.sweep import SweepResult, run_sweep
from pipeline.errors import DictionaryError
from store.reader import Store
from train.device import resolve_device
from train.dictionary.artifact import load_dictionary, read_description
from train.dictionary.crosscoder import Crosscoder


@dataclass(frozen=True)
class Analysis:
    """Everything that one sweep found out about one dictionary."""

    folder: Path
    recipe: str
    dictionary: Crosscoder
    result: SweepResult
    table: pl.DataFrame
    claims: list[Claim]
    planted: list[PlantedCount]

    @property
    def models(self) -> tuple[str, str]:
        """The two models compared."""
        return model_pair(self.dictionary)

    @property
    def fve(self) -> dict[str, float | None]:
        """FVE on held-out documents per model; per hookpoint if a model has several."""
        hookpoints = self.dictionary.hookpoints
        single = len({hookpoint.model for hookpoint in hookpoints}) == len(hookpoints)
        return {h.model if single else h.name: self.result.fve[h.name] for h in hookpoints}

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
    store: Store,
    folder: Path,
    config: AnalyzeConfig,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> Analysis:
    """One sweep over the store with the dictionary in `folder`."""
    dictionary = load_dictionary(folder).to(resolve_device(config.device, "analyze.device"))
    description = read_description(folder)
    check_models(config.planted, model_pair(dictionary))
    check_planted_labels(config.planted, read_labels(store.documents).names)
    check_origin(store, description, folder)
    held_out = float(description.get("train", {}).get("validation_fraction", 0.0))
    result = run_sweep(store, dictionary, config, held_out, on_rows)
    table = norms_table(dictionary, result)
    found = claims(dictionary, table, config.top_features, config.min_fires)
    planted = planted_counts(found, result, config.planted, config.planted_ratio)
    recipe = str(description.get("recipe", folder.name))
    return Analysis(folder, recipe, dictionary, result, table, found, planted)


def check_origin(store: Store, description: dict[str, Any], folder: Path) -> None:
    """Raises DictionaryError if the dictionary was trained on activations of other models."""
    origin = description.get("store") or description.get("live") or {}
    begun = origin.get("fingerprints", {})
    for key, now in store.schema.fingerprints.items():
        if key.startswith("models.") and begun.get(key, now) != now:
            raise DictionaryError(
                f"{folder}: was trained on another model {key.removeprefix('models.')} "
                f"({begun[key]}) than {store.path} holds ({now}); name the store it was trained on"
            )


def write_tables(analysis: Analysis, out: Path) -> list[Path]:
    """Norms as parquet and CSV, their histogram as PNG and HTML; returns the files."""
    out.mkdir(parents=True, exist_ok=True)
    files = [out / name for name in ("norms.parquet", "norms.csv", "norms.png", "norms.html")]
    analysis.table.write_parquet(files[0])
    analysis.table.write_csv(files[1])
    histogram_png(analysis.table, analysis.models, files[2])
    histogram_figure(analysis.table, analysis.models).write_html(files[3], include_plotlyjs=True)
    return files
