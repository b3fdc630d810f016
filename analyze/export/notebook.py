"""All that is known of each feature, in one table: what the commands of `analyze` have written.

A row per feature. Columns of `norms` and `features` keep their names; those of scaling, transfer,
exclusivity, compare and explanations have the table's name before theirs. What a feature has
several lines of (pairs of hookpoints) becomes a list; tokens, neighbours, mirrors and steered texts
are lists of structs; steering is summarised by its largest effect over alpha. A table that was not
made, or of another dictionary or store, is left out. Cost: the tables in memory, twice.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import polars as pl

from analyze.export.chosen import Features
from analyze.export.columns import describe_columns
from analyze.tables import Tables
from pipeline.errors import ConfigError
from store.files import TEMPORARY, json_bytes, make_folder
from train.dictionary.crosscoder import Crosscoder

PLAIN = ("norms", "features")
PREFIXED = ("scaling", "transfer", "exclusivity", "compare", "explanations")
ONCE = ("group", "claimed_for", "density", "fires")  # the same in every table that has them
METADATA = "columns"


def feature_table(dictionary: Crosscoder, tables: Tables, features: Features) -> pl.DataFrame:
    """A row per feature of `features`, with all that `tables` says of it.

    Raises ConfigError if there is no table of this dictionary.
    """
    groups = dictionary.partition.group_of_feature()
    joined = pl.DataFrame({"feature": range(len(groups)), "group": groups}).filter(
        pl.col("feature").is_in(features.tolist())
    )
    before = joined.width
    for name in PLAIN + PREFIXED:
        table = tables.read(name)
        if table is not None:
            joined = _join(joined, _per_feature(table), "" if name in PLAIN else f"{name}_")
    for name, summarise in NESTED.items():
        table = tables.read(name)
        if table is not None and len(table):
            joined = _join(joined, summarise(table), "")
    if joined.width == before:
        raise ConfigError(
            f"{tables.folder}: no table of this dictionary and store; run `analyze norms` or "
            "another command first, or name the folder with --tables"
        )
    return joined


def write_parquet(table: pl.DataFrame, file: Path) -> None:
    """Replaces `file` as a whole; its key `columns` says as JSON what each column means."""
    import pyarrow.parquet as pq

    make_folder(file.parent)
    arrow = table.to_arrow(compat_level=pl.CompatLevel.oldest())
    lines = json_bytes(describe_columns(table.columns))
    arrow = arrow.replace_schema_metadata({METADATA: lines})
    temporary = file.with_name(file.name + TEMPORARY)
    try:
        pq.write_table(arrow, temporary, compression="zstd")
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def _join(joined: pl.DataFrame, table: pl.DataFrame, prefix: str) -> pl.DataFrame:
    known = [name for name in ONCE if name in joined.columns]
    table = table.drop(*known, strict=False)
    new = {n: prefix + n for n in table.columns if n not in ("feature", *ONCE)}
    table = table.rename(new).with_columns(pl.col("feature").cast(pl.Int64))
    there = [name for name in table.columns if name != "feature" and name in joined.columns]
    return joined.join(table.drop(*there), "feature", how="left", maintain_order="left")


def _per_feature(table: pl.DataFrame) -> pl.DataFrame:
    """A row per feature; a list of values for each column where some feature has several lines.

    What is the same on all lines of every feature stays as it is.
    """
    if table["feature"].is_unique().all():
        return table
    same = [name for name in ONCE if name in table.columns]
    return table.group_by("feature", maintain_order=True).agg(
        pl.col(same).first(), pl.exclude("feature", *same)
    )


def _tokens(table: pl.DataFrame) -> pl.DataFrame:
    kind = pl.when("promoted").then(pl.lit("promoted")).otherwise(pl.lit("suppressed"))
    name = pl.concat_str(pl.lit("tokens_"), kind, pl.lit("_"), pl.col("model"))
    return _lists(table.with_columns(name=name).sort("rank"), ["token", "logit"])


def _neighbours(table: pl.DataFrame) -> pl.DataFrame:
    name = pl.concat_str(pl.lit("neighbours_"), pl.col("model"))
    return _lists(table.with_columns(name=name).sort("rank"), ["neighbour", "cosine"])


def _mirrors(table: pl.DataFrame) -> pl.DataFrame:
    """Every pair, seen from both."""
    kept = ["jaccard", "correlation"]
    sides = [("feature_a", "feature_b"), ("feature_b", "feature_a")]
    both = [
        table.select(pl.col(own).alias("of"), pl.col(other).alias("feature"), *kept)
        for own, other in sides
    ]
    pairs = pl.concat(both).sort("jaccard", descending=True, maintain_order=True)
    nested = pairs.group_by("of", maintain_order=True).agg(mirrors=pl.struct("feature", *kept))
    return nested.rename({"of": "feature"})


def _steer(table: pl.DataFrame) -> pl.DataFrame:
    named = {
        f"steer_{short}_{where}": f"{column}_{where}"
        for short, column in (("kl", "kl"), ("top1", "top1_changed"))
        for where in ("firing", "silent")
    }
    largest = table.group_by("feature", "steered").agg(
        **{name: pl.col(column).max() for name, column in named.items()}
    )
    wide = [
        largest.filter(steered=model).select("feature", pl.col(*named).name.suffix(f"_{model}"))
        for model in sorted(largest["steered"].unique())
    ]
    found = pl.DataFrame({"feature": sorted(largest["feature"].unique())})
    for part in wide:
        found = found.join(part, "feature", how="left")
    return found


def _steer_texts(table: pl.DataFrame) -> pl.DataFrame:
    kept = pl.struct("steered", "alpha", "prompt", "text")
    return table.group_by("feature", maintain_order=True).agg(steer_texts=kept)


def _lists(table: pl.DataFrame, columns: list[str]) -> pl.DataFrame:
    """A column per value of `name`, of lists of structs."""
    nested = table.group_by("feature", "name", maintain_order=True).agg(values=pl.struct(*columns))
    return nested.pivot("name", index="feature", values="values", sort_columns=True)


NESTED: dict[str, Callable[[pl.DataFrame], pl.DataFrame]] = {
    "tokens": _tokens,
    "neighbours": _neighbours,
    "mirrors": _mirrors,
    "steer": _steer,
    "steer_texts": _steer_texts,
}
