"""The linear evidence as tables: a line per feature and pair of hookpoints, a line per map."""

from __future__ import annotations

import numpy as np
import polars as pl
from torch import Tensor

from analyze.norms import model_pair
from analyze.pairing import claimed_for, hookpoint_pairs
from analyze.statistics.moments import Moments
from analyze.statistics.readout import Readout
from analyze.subject import Subject
from analyze.transfer.directions import Maps, directions, fit_maps
from analyze.transfer.readouts import Readouts, readouts

NUMBERS = (
    *("mapped_norm", "round_trip", "direction_r2"),
    *("readout_own", "readout_other", "readout_ratio"),
)


def all_maps(subject: Subject, moments: Moments) -> list[Maps]:
    """The maps of every pair of hookpoints, seen from the first model.

    Raises DictionaryError if hookpoints do not come in pairs, StoreError if rows are too few.
    """
    return [fit_maps(moments, pair) for pair in hookpoint_pairs(subject.dictionary)]


def transfer_table(
    subject: Subject, maps: list[Maps], moments: Moments, readout: Readout
) -> pl.DataFrame:
    """One line per feature and pair, for the model it is claimed for; null where undefined.

    Readouts are of all hookpoints of a model together: the same on each of a feature's lines.
    """
    first, second = model_pair(subject.dictionary)
    found = readouts(moments, readout, subject)
    parts = [
        _part(subject, seen_from, model, found)
        for one in maps
        for model, seen_from in ((first, one), (second, one.reversed()))
    ]
    return pl.concat(parts).sort("feature", "other_hookpoint")


def _part(subject: Subject, maps: Maps, model: str, read: Readouts) -> pl.DataFrame:
    """Lines of the features that are claimed for one model."""
    dictionary = subject.dictionary
    features_F = claimed_for(dictionary)[model].nonzero().squeeze(1)
    features = features_F.cpu().numpy()
    found = directions(dictionary, maps, features_F)
    group = np.array(dictionary.partition.group_of_feature())
    own, other = dictionary.hookpoints[maps.pair.own], dictionary.hookpoints[maps.pair.other]
    return pl.DataFrame(
        {
            "feature": features,
            "group": group[features],
            "claimed_for": [model] * len(features),
            "own_hookpoint": [own.name] * len(features),
            "other_hookpoint": [other.name] * len(features),
            "mapped_norm": _numbers(found.mapped_norm),
            "round_trip": _numbers(found.round_trip),
            "direction_r2": _numbers(found.r2),
            "readout_own": _numbers(read.own_F[features_F]),
            "readout_other": _numbers(read.other_F[features_F]),
            "readout_ratio": _numbers(read.ratio_F[features_F]),
        }
    ).with_columns(pl.col(*NUMBERS).fill_nan(None))


def maps_table(subject: Subject, maps: list[Maps]) -> pl.DataFrame:
    """One line per map: rows, R^2 on held-out and on training rows, strength of the ridge."""
    names = [hookpoint.name for hookpoint in subject.dictionary.hookpoints]
    lines = [
        {
            "from": names[seen_from.pair.own],
            "to": names[seen_from.pair.other],
            "rows": seen_from.there.rows,
            "held_out_rows": seen_from.there.held_out_rows,
            "r2": seen_from.there.r2,
            "r2_fit": seen_from.there.r2_fit,
            "ridge": seen_from.there.ridge,
        }
        for one in maps
        for seen_from in (one, one.reversed())
    ]
    return pl.DataFrame(lines).with_columns(pl.col("r2", "r2_fit").fill_nan(None))


def transfer_summary(table: pl.DataFrame) -> pl.DataFrame:
    """Per model and group: features whose activation varies, and medians of the evidence."""
    fired = table.filter(pl.col("readout_own").is_not_null())
    medians = {f"median_{name}": pl.col(name).median() for name in NUMBERS}
    return (
        fired.group_by("claimed_for", "group", maintain_order=True)
        .agg(features=pl.col("feature").n_unique(), **medians)
        .sort("claimed_for", "group")
    )


def _numbers(values_F: Tensor) -> np.ndarray:
    found: np.ndarray = values_F.cpu().numpy()
    return found
