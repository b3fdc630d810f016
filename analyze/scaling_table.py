"""Latent scaling as a table: a line per feature and pair of hookpoints."""

from __future__ import annotations

import numpy as np
import polars as pl

from analyze.scaling import Scaling, ScalingSums
from analyze.statistics.latent_scaling import LatentScaling
from train.dictionary.crosscoder import Crosscoder

# Below both a feature counts as specific to its model (arXiv 2504.02922).
NU_EPS, NU_R = 0.2, 0.5


def scaling_table(dictionary: Crosscoder, sums: LatentScaling) -> pl.DataFrame:
    """One line per feature and pair of hookpoints: betas, nus, direction; null where undefined.

    `specific`: nu_eps < 0.2 and nu_r < 0.5; null where widths differ.
    """
    group = np.array(dictionary.partition.group_of_feature())
    parts = [_part(dictionary, one, group) for one in sums.parts]
    return pl.concat(parts).sort("feature", "other_hookpoint")


def _part(dictionary: Crosscoder, sums: ScalingSums, group: np.ndarray) -> pl.DataFrame:
    """Lines of the features that are claimed for one model."""
    found, pair = sums.result(), sums.pair
    features = sums.claimed_F.nonzero().squeeze(1).cpu().numpy()
    own, other = dictionary.hookpoints[pair.own], dictionary.hookpoints[pair.other]
    columns = {name: _numbers(found, name)[features] for name in COLUMNS}
    table = pl.DataFrame(
        {
            "feature": features,
            "group": group[features],
            "claimed_for": [own.model] * len(features),
            "own_hookpoint": [own.name] * len(features),
            "other_hookpoint": [other.name] * len(features),
            **columns,
        }
    ).with_columns(pl.col(*COLUMNS).fill_nan(None))
    specific = (pl.col("nu_eps") < NU_EPS) & (pl.col("nu_r") < NU_R)
    return table.with_columns(specific=specific)


COLUMNS = (
    *("nu_eps", "nu_r", "beta_eps_own", "beta_eps_other", "beta_r_own", "beta_r_other"),
    *("direction", "null_direction"),
)


def _numbers(found: Scaling, name: str) -> np.ndarray:
    values: np.ndarray = getattr(found, name).cpu().numpy()
    return values


def scaling_summary(table: pl.DataFrame) -> pl.DataFrame:
    """Per model and group: features that fired, how many are specific, medians."""
    fired = table.filter(pl.col("beta_eps_own").is_not_null())
    return (
        fired.group_by("claimed_for", "group", maintain_order=True)
        .agg(
            features=pl.len(),
            specific=_counted(pl.col("specific")),
            shrunk=_counted(pl.col("nu_eps") >= NU_EPS),
            decoupled=_counted(pl.col("nu_r") >= NU_R),
            median_nu_eps=pl.col("nu_eps").median(),
            median_nu_r=pl.col("nu_r").median(),
            median_direction=pl.col("direction").median(),
            median_null=pl.col("null_direction").median(),
        )
        .sort("claimed_for", "group")
    )


def _counted(condition: pl.Expr) -> pl.Expr:
    """How often it holds; null, not 0, where it is known of no feature."""
    return pl.when(condition.is_not_null().any()).then(condition.sum())
