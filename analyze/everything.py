"""All statistics of a subject, for one pass over its rows: what `report` and the rest draw from."""

from __future__ import annotations

from analyze.config import AnalyzeConfig
from analyze.features.choice import cofiring
from analyze.features.shown import SAMPLE
from analyze.statistics.firing import Firing
from analyze.statistics.kept_rows import KeptRows
from analyze.statistics.latent_scaling import LatentScaling
from analyze.statistics.moments import Moments
from analyze.statistics.readout import Readout
from analyze.statistics.reconstruction import Reconstruction
from analyze.subject import Subject
from analyze.sweep.accumulator import Accumulator


def everything(subject: Subject, config: AnalyzeConfig) -> list[Accumulator]:
    """Fresh accumulators of every command that needs a sweep; compare has its own."""
    return [
        Firing(subject.features, subject.labels),
        KeptRows("top", subject.features, config.contexts),
        KeptRows("sample", subject.features, SAMPLE),
        Reconstruction(subject),
        LatentScaling(subject, config.batch_rows, directions=True),
        Moments(subject),
        Readout(subject),
        cofiring(subject.dictionary),
    ]
