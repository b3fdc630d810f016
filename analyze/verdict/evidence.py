"""The evidence of exclusivity, per feature, as one sweep over a subject gives it.

readout_ratio: how well the feature's activation is read, linearly, from the other model's
activations, over how well from its own model's (analyze.transfer.readouts). direction: the length
of the best direction on the other model's residual over that of the feature's own decoder
(analyze.scaling). mapped_norm: how much of the decoder the map to the other model leaves
(analyze.transfer.directions). other_norm_share: the other model's share of the decoder norms, R or
1 - R. steering_agreement: whether the mapped direction does there what the own one does here
(analyze.causal.agreement), where it was steered with. Small values speak for exclusivity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from analyze.config import AnalyzeConfig
from analyze.norms import model_norms, model_pair, relative_decoder_norm
from analyze.scaling_table import scaling_table
from analyze.statistics.firing import Firing
from analyze.statistics.latent_scaling import LatentScaling
from analyze.statistics.moments import Moments
from analyze.statistics.readout import Readout
from analyze.subject import Subject
from analyze.sweep.accumulator import Accumulator
from analyze.transfer.table import all_maps, transfer_table

STEERING, NORM_SHARE = "steering_agreement", "other_norm_share"
SWEPT = ("readout_ratio", "direction", "mapped_norm")
EVIDENCE = (*SWEPT, NORM_SHARE, STEERING)
BESIDE = ("nu_eps", "nu_r", "round_trip", "direction_r2", "readout_own")


@dataclass(frozen=True)
class Sums:
    """The accumulators that the evidence comes from."""

    firing: Firing
    scaling: LatentScaling
    moments: Moments
    readout: Readout

    @property
    def all(self) -> Sequence[Accumulator]:
        """All of them, for one sweep."""
        return (self.firing, self.scaling, self.moments, self.readout)


def fresh_sums(subject: Subject, batch_rows: int) -> Sums:
    """Empty accumulators."""
    return Sums(
        Firing(subject.features, subject.labels),
        LatentScaling(subject, batch_rows, directions=True),
        Moments(subject),
        Readout(subject),
    )


def evidence_table(subject: Subject, sums: Sums, config: AnalyzeConfig) -> pl.DataFrame:
    """One line per feature: group, claimed_for, R, fires, candidate, shared, and the evidence.

    Of several pairs of hookpoints the largest value counts: what speaks most against exclusivity
    (of steering that pair is taken where the feature's own decoder is longest).
    candidate: may be called exclusive: in a model's exclusive group, or R beyond `candidate_norm`.
    shared: both models have it for sure: both see it, and R says neither (`norm_shared`); none of
    them is a candidate.
    steering_agreement is left empty: see analyze.verdict.steering.
    """
    dictionary = subject.dictionary
    first, second = model_pair(dictionary)
    norms = model_norms(dictionary)
    R = relative_decoder_norm(norms[first], norms[second])
    group = np.array(dictionary.partition.group_of_feature())
    alone = _alone(subject, (first, second))
    extreme = np.maximum(R, 1 - R)
    fires = sums.firing.fires.sum(axis=1)
    candidate = (alone | (extreme > config.candidate_norm)) & (fires > 0)
    middle = extreme < config.norm_shared
    base = pl.DataFrame(
        {
            "feature": np.arange(subject.features),
            "group": group,
            "relative_decoder_norm": R,
            "fires": fires,
            "candidate": candidate,
            "shared": ~alone & ~candidate & middle & (fires >= config.min_fires),
        }
    ).with_columns(pl.col("relative_decoder_norm").fill_nan(None))
    R_first = pl.col("relative_decoder_norm")
    other = pl.when(pl.col("claimed_for") == first).then(1 - R_first).otherwise(R_first)
    return base.join(_numbers(subject, sums), on="feature", how="left").with_columns(
        other.alias(NORM_SHARE), pl.lit(None, pl.Float64).alias(STEERING)
    )


def _alone(subject: Subject, models: tuple[str, str]) -> np.ndarray:
    """Which features are in a group that one model alone sees (F,)."""
    groups = subject.dictionary.partition.groups
    single = [len(set(group.models) & set(models)) == 1 for group in groups]
    return np.repeat(single, [group.size for group in groups])


def _numbers(subject: Subject, sums: Sums) -> pl.DataFrame:
    scaling = scaling_table(subject.dictionary, sums.scaling)
    maps = all_maps(subject, sums.moments)
    transfer = transfer_table(subject, maps, sums.moments, sums.readout)
    keys = ["feature", "own_hookpoint", "other_hookpoint"]
    both = scaling.join(transfer.drop("group", "claimed_for"), on=keys, how="left")
    numbers = [*SWEPT, *BESIDE, "null_direction"]
    return both.group_by("feature").agg(pl.col("claimed_for").first(), pl.col(numbers).max())
