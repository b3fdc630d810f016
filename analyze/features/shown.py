"""Which firings of a feature are shown: its largest, and some of every quarter of its activations.

The largest alone mislead: weak firings are most of them, and often mean something else.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from jaxtyping import Int64

from analyze.statistics.firing import Firing
from analyze.statistics.kept_rows import KeptRows

TOP = "top"
BANDS = ("75-100%", "50-75%", "25-50%", "0-25%")  # of the feature's activations, largest first
EDGES = [0.25, 0.5, 0.75]
PER_BAND = 2
SAMPLE = 64  # rows to choose those of the bands from


def shown_firings(
    firing: Firing, top: KeptRows, sample: KeptRows, features: Int64[np.ndarray, " chosen"]
) -> pl.DataFrame:
    """Lines of feature, band, rank (from 1), row and activation, in the order of `features`.

    A row that is among the largest is not shown again. A band is of activations up to the upper
    quantile, which Firing knows within 4.5%; rows in it are a uniform sample.
    """
    order = pl.DataFrame({"feature": features, "order": np.arange(len(features))})
    largest = _entries(top).join(order, on="feature").with_columns(band=pl.lit(0, pl.Int64))
    edges = firing.quantiles(EDGES)
    others = (
        _entries(sample).join(order, on="feature").join(largest, on=["feature", "row"], how="anti")
    )
    above = edges[others["feature"].to_numpy()] < others["activation"].to_numpy()[:, None]
    others = others.with_columns(band=len(BANDS) - above.sum(axis=1))
    both = pl.concat([largest, others.select(largest.columns)])
    rank = pl.int_range(pl.len()).over("feature", "band") + 1
    names = dict(enumerate((TOP, *BANDS)))
    return (
        both.with_columns(rank=rank)
        .filter((pl.col("band") == 0) | (pl.col("rank") <= PER_BAND))
        .sort("order", "band", "rank")
        .with_columns(pl.col("band").replace_strict(names, return_dtype=pl.String))
        .select("feature", "band", "rank", "row", "activation")
    )


def _entries(kept: KeptRows) -> pl.DataFrame:
    """The kept rows of every feature, first in rank first."""
    state = kept.state()
    columns = {"feature": "features", "row": "rows", "activation": "values"}
    return pl.DataFrame({name: state[key].numpy() for name, key in columns.items()})
