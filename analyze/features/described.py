"""All that `analyze features` says of chosen features, from the sums of one sweep."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
from jaxtyping import Int64

from analyze.config import AnalyzeConfig
from analyze.features.choice import candidates, cofiring, strongest
from analyze.features.lens import Lenses, tokens_table
from analyze.features.mirrors import mirrors_table, pairs_table
from analyze.features.neighbours import neighbours_table
from analyze.features.shown import SAMPLE, shown_firings
from analyze.features.table import contexts_table, features_table
from analyze.statistics.cofiring import CoFiring
from analyze.statistics.firing import Firing
from analyze.statistics.kept_rows import KeptRows
from analyze.subject import Subject
from analyze.sweep.accumulator import Accumulator


@dataclass(frozen=True)
class Sums:
    """What is summed up over all rows, fresh until a sweep fills it."""

    firing: Firing
    top: KeptRows
    sample: KeptRows
    cofiring: CoFiring

    @classmethod
    def of(cls, subject: Subject, section: AnalyzeConfig) -> Sums:
        """Fresh ones for a subject."""
        return cls(
            Firing(subject.features, subject.labels),
            KeptRows("top", subject.features, section.contexts),
            KeptRows("sample", subject.features, SAMPLE),
            cofiring(subject.dictionary),
        )

    @property
    def accumulators(self) -> list[Accumulator]:
        """All of them."""
        return [self.firing, self.top, self.sample, self.cofiring]


@dataclass(frozen=True)
class Described:
    """The tables of chosen features, by their names; pairs: all that fire together, mirrors or not.

    tokens: None where nothing was asked of the models.
    """

    features: pl.DataFrame
    contexts: pl.DataFrame
    tokens: pl.DataFrame | None
    neighbours: pl.DataFrame
    mirrors: pl.DataFrame
    pairs: pl.DataFrame


def default_features(subject: Subject, firing: Firing, most: int) -> Int64[np.ndarray, " chosen"]:
    """Features that may be exclusive and fire, at most so many, by summed activation."""
    own = np.concatenate(list(candidates(subject.dictionary).values()))
    return strongest(own, firing.activation.sum(axis=1), most)


def describe(
    subject: Subject,
    sums: Sums,
    features: Int64[np.ndarray, " chosen"],
    section: AnalyzeConfig,
    lenses: Lenses | None,
    shown: pl.DataFrame | None = None,
    on_contexts: Callable[[float], None] = lambda contexts: None,
) -> Described:
    """The tables of these features. shown: the firings whose texts are wanted (None: the usual)."""
    dictionary, firing = subject.dictionary, sums.firing
    pairs = pairs_table(sums.cofiring, section.min_fires)
    mirrors = mirrors_table(pairs)
    if shown is None:
        shown = shown_firings(firing, sums.top, sums.sample, features)
    return Described(
        features_table(dictionary, firing, features, mirrors),
        contexts_table(
            subject, firing, shown, section.context_rows, section.batch_rows, on_contexts
        ),
        None if lenses is None else tokens_table(dictionary, lenses, features),
        neighbours_table(dictionary, features, firing.fires.sum(axis=1) > 0),
        mirrors,
        pairs,
    )
