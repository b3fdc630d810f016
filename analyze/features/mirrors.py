"""Mirror pairs: a concept that has a feature in both models' exclusive groups.

Comparing a model with its own fine-tune finds them often, and neither feature is exclusive then.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from analyze.statistics.cofiring import CoFiring, Together

LIKE = 0.5  # Jaccard index or correlation from which a pair counts as mirrors


def pairs_table(cofiring: CoFiring, least: int) -> pl.DataFrame:
    """Every pair that fires together on at least `least` rows, the most alike first.

    Columns feature_a (first model), feature_b, fires_a, fires_b, both (rows), jaccard,
    correlation. Alike: the larger of jaccard and correlation.
    """
    found: Together = cofiring.together(least)
    sides = zip((cofiring.first, cofiring.second), (found.first, found.second), strict=True)
    fires = [
        own[np.searchsorted(features, chosen)]
        for (features, chosen), own in zip(sides, cofiring.fires(), strict=True)
    ]
    return (
        pl.DataFrame(
            {
                "feature_a": found.first,
                "feature_b": found.second,
                "fires_a": fires[0],
                "fires_b": fires[1],
                "both": found.both,
                "jaccard": found.jaccard,
                "correlation": found.correlation,
            }
        )
        .with_columns(pl.col("correlation").fill_nan(None))
        .sort(_alike(), "feature_a", "feature_b", descending=[True, False, False])
    )


def mirrors_table(pairs: pl.DataFrame) -> pl.DataFrame:
    """Those of a table of pairs that are mirrors: jaccard or correlation at least LIKE."""
    return pairs.filter(_alike() >= LIKE)


def mirror_of(mirrors: pl.DataFrame) -> pl.DataFrame:
    """Per feature of the mirrors the one most like it: feature, mirror, mirror_jaccard."""
    both = [
        mirrors.select(
            feature=f"feature_{own}", mirror=f"feature_{other}", mirror_jaccard="jaccard"
        )
        for own, other in ("ab", "ba")
    ]
    first, second = (side.unique("feature", keep="first", maintain_order=True) for side in both)
    return pl.concat([first, second])


def _alike() -> pl.Expr:
    return pl.max_horizontal("jaccard", "correlation")
