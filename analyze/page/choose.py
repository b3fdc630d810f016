"""Which features the page shows, and in what order: those found exclusive, then where to look."""

from __future__ import annotations

import math

import polars as pl

from analyze.analysis import Analysis
from analyze.page.lines import Lines

EXCLUSIVE = "exclusive"  # the verdict
FOUND, CLAIMED, GROUPED, ALIVE, DEAD = range(5)


def chosen(analysis: Analysis, verdicts: pl.DataFrame | None, limit: int) -> list[int]:
    """At most `limit` features: the second model's before the first's, as the title asks.

    Found exclusive, by q; claimed; of an exclusive group, by summed activation; others that fire,
    those with the most extreme relative norm first; dead ones.
    """
    frame = analysis.table
    verdict_of = Lines(verdicts, frame["feature"].to_list())
    claimed = {
        feature: place for claim in analysis.claims for place, feature in enumerate(claim.features)
    }
    groups = analysis.dictionary.partition.groups
    alone = {group.name: group.models[0] for group in groups if len(group.models) == 1}

    def rank(row: tuple[int, str, int, float, float | None]) -> tuple[float, ...]:
        feature, group, fires, total, norm = row
        extreme = 0.0 if norm is None else abs(norm - 0.5)
        line = verdict_of.first(feature)
        first = line.get("claimed_for", alone.get(group)) == analysis.models[0]
        if line.get("verdict") == EXCLUSIVE:
            return (FOUND, first, _or_last(line.get("q")), _or_last(line.get("p")), -total)
        if feature in claimed:
            first = feature in analysis.claims[0].features
            return (CLAIMED, first, claimed[feature])
        if not fires:
            return (DEAD, group not in alone, -extreme)
        return (GROUPED, -total) if group in alone else (ALIVE, -extreme, -total)

    columns = ("feature", "group", "fires", "activation_sum", "relative_decoder_norm")
    ranked = sorted(frame.select(columns).iter_rows(), key=lambda row: (*rank(row), row[0]))
    return [row[0] for row in ranked[:limit]]


def _or_last(value: float | None) -> float:
    return math.inf if value is None else value
