"""What a dictionary calls each of its features: one model's alone, shared, or neither.

By the verdicts of the table `exclusivity` where both dictionaries have one, else by the tags of
their decoder norms, which count every feature of an exclusive group as that model's alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from analyze.config import AnalyzeConfig
from analyze.norms import (
    OTHER,
    SHARED,
    model_norms,
    model_pair,
    only,
    relative_decoder_norm,
    tags,
)
from analyze.subject import Subject
from analyze.tables import Tables
from analyze.verdict.judge import EXCLUSIVE, TOO_RARE
from pipeline.errors import DictionaryError

RARE = "rare"  # beside the tags: fires on too few rows to be called anything


@dataclass(frozen=True)
class Side:
    """A dictionary as it is compared: per feature (F,) its group, tag, verdict (or None) and call.

    called: `<model>_only`, `shared`, `other` or `rare`; relative: R, NaN for a feature without
    norms; fires: rows on which it fires.
    """

    name: str
    models: tuple[str, str]
    group: list[str]
    tag: list[str]
    verdict: list[str | None]
    called: list[str]
    relative: np.ndarray
    fires: np.ndarray

    @property
    def has_verdicts(self) -> bool:
        """Whether a table of verdicts was found."""
        return any(verdict is not None for verdict in self.verdict)

    @property
    def alive(self) -> np.ndarray:
        """Which features fire, bool (F,)."""
        return self.fires > 0

    def share_called(self, kind: str) -> float | None:
        """Share of the features that fire which are called so; None if none fires."""
        calls = np.array(self.called)[self.alive]
        return float((calls == kind).mean()) if len(calls) else None


def check_models(first: Subject, other: Subject) -> None:
    """Raises DictionaryError unless both are dictionaries of the same two models."""
    models = [model_pair(subject.dictionary) for subject in (first, other)]
    if set(models[0]) != set(models[1]):
        raise DictionaryError(
            f"{first.folder} compares {' and '.join(models[0])}, {other.folder} "
            f"{' and '.join(models[1])}; name two dictionaries of the same two models"
        )


def side_of(
    subject: Subject,
    name: str,
    fires: np.ndarray,
    config: AnalyzeConfig,
    verdicts: pl.DataFrame | None,
    by_verdict: bool,
) -> Side:
    """The dictionary with the tags of its norms; by_verdict: calls are what `verdicts` says."""
    first, second = models = model_pair(subject.dictionary)
    norms = model_norms(subject.dictionary)
    relative = relative_decoder_norm(norms[first], norms[second])
    tag = tags(relative, models, config.norm_exclusive, config.norm_shared)
    verdict, claimed = _verdicts(verdicts, subject.features)
    called = _by_verdict(tag, verdict, claimed) if by_verdict else tag
    called = [
        RARE if rows < config.min_fires else call for call, rows in zip(called, fires, strict=True)
    ]
    group = subject.dictionary.partition.group_of_feature()
    return Side(name, models, group, tag, verdict, called, relative, fires)


def find_verdicts(subject: Subject, folders: Iterable[Path]) -> pl.DataFrame | None:
    """The table `exclusivity` of this dictionary in the first of the folders that has one."""
    for folder in folders:
        found = Tables(folder, subject.fingerprint).read("exclusivity")
        if found is not None:
            return found
    return None


def _verdicts(
    table: pl.DataFrame | None, features: int
) -> tuple[list[str | None], list[str | None]]:
    verdict: list[str | None] = [None] * features
    claimed: list[str | None] = [None] * features
    if table is not None:
        columns = table.select("feature", "verdict", "claimed_for")
        for feature, what, model in columns.iter_rows():
            verdict[feature], claimed[feature] = what, model
    return verdict, claimed


def _by_verdict(tag: list[str], verdict: list[str | None], claimed: list[str | None]) -> list[str]:
    """Exclusive where the verdict is; what norms alone would call exclusive is then neither."""
    calls = []
    for norms_say, what, model in zip(tag, verdict, claimed, strict=True):
        if what == EXCLUSIVE and model is not None:
            calls.append(only(model))
        elif what == TOO_RARE:
            calls.append(RARE)
        else:
            calls.append(SHARED if norms_say == SHARED else OTHER)
    return calls
