"""The comparison as a table, a line per feature, and how many findings were found again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from analyze.compare.matches import By, Matches, mean_max_cosine
from analyze.compare.sides import RARE, Side
from analyze.config import AnalyzeConfig
from analyze.norms import OTHER, SHARED, only

NOTHING = "nothing"  # what a feature without a counterpart was matched with


@dataclass(frozen=True)
class Comparison:
    """Two dictionaries and each one's matches in the other, by direction and by activity.

    by_verdict: features are called by verdicts, not by the tags of their norms.
    """

    first: Side
    other: Side
    direction: tuple[Matches, Matches]
    activity: tuple[Matches, Matches]
    config: AnalyzeConfig
    by_verdict: bool = False

    def threshold(self, by: By) -> float:
        """What a match must reach to be a counterpart."""
        return self.config.match_cosine if by == "direction" else self.config.match_correlation

    def matches(self, by: By) -> tuple[Matches, Matches]:
        """The first dictionary's matches in the other, and the reverse."""
        return self.direction if by == "direction" else self.activity

    def scores(self, by: By, side: int = 0) -> np.ndarray:
        """Cosine or correlation of each feature with its match; NaN where it has none."""
        found = self.matches(by)[side]
        return found.cosine if by == "direction" else found.correlation

    @property
    def mmcs(self) -> tuple[float | None, float | None]:
        """Mean max cosine similarity of the features that fire: first in other, other in first."""
        return mean_max_cosine(self.direction[0]), mean_max_cosine(self.direction[1])

    def counterparts(self, by: By, side: int = 0) -> list[str]:
        """What the match of each feature is called; `nothing` where it is below the threshold.

        side: 0 for features of the first dictionary, 1 for those of the other.
        """
        found, score = self.matches(by)[side], self.scores(by, side)
        called = (self.other, self.first)[side].called
        reached = (found.feature >= 0) & (score >= self.threshold(by))
        features = found.feature.tolist()
        return [
            called[feature] if is_one else NOTHING
            for feature, is_one in zip(features, reached.tolist(), strict=True)
        ]


def compare_table(comparison: Comparison) -> pl.DataFrame:
    """One line per feature of the first dictionary: its match by direction, and by activity.

    `other_*` are of the match by direction, `active_*` of that by activity; both null where a
    feature has none. `matched`: what the match is called, `nothing` below the threshold;
    `replicates`: whether that is what the feature itself is called, null where it is called
    neither exclusive nor shared.
    """
    first, other = comparison.first, comparison.other
    direction, activity = comparison.direction[0], comparison.activity[0]
    count = len(first.called)
    table = pl.DataFrame(
        {
            "feature": np.arange(count),
            "group": first.group,
            "tag": first.tag,
            "verdict": pl.Series(first.verdict, dtype=pl.String),
            "called": first.called,
            "relative_decoder_norm": first.relative,
            "fires": first.fires.astype(np.int64),
            "other": [other.name] * count,
            **_matched("other", direction, other),
            "matched": comparison.counterparts("direction"),
            **_matched("active", activity, other),
            "active_matched": comparison.counterparts("activity"),
        },
        strict=False,
    )
    finding = pl.col("called").is_in(findings(first))
    return table.with_columns(pl.col(pl.Float64).fill_nan(None)).with_columns(
        replicates=pl.when(finding).then(pl.col("matched") == pl.col("called")),
        active_replicates=pl.when(finding).then(pl.col("active_matched") == pl.col("called")),
    )


def _matched(prefix: str, matches: Matches, other: Side) -> dict[str, pl.Series]:
    """Columns about the matches: which, how near, and what the other dictionary calls them."""
    feature = matches.feature.tolist()

    def taken(values: list[str] | list[str | None]) -> pl.Series:
        return pl.Series([values[f] if f >= 0 else None for f in feature], dtype=pl.String)

    return {
        f"{prefix}_feature": pl.Series([f if f >= 0 else None for f in feature], dtype=pl.Int64),
        f"{prefix}_cosine": pl.Series(matches.cosine, dtype=pl.Float64),
        f"{prefix}_correlation": pl.Series(matches.correlation, dtype=pl.Float64),
        f"{prefix}_mutual": pl.Series(matches.mutual),
        f"{prefix}_group": taken(other.group),
        f"{prefix}_tag": taken(other.tag),
        f"{prefix}_verdict": taken(other.verdict),
        f"{prefix}_called": taken(other.called),
        f"{prefix}_relative_decoder_norm": pl.Series(
            np.where(matches.feature >= 0, other.relative[matches.feature], np.nan)
        ),
    }


def findings(side: Side) -> list[str]:
    """What a feature may be called that can be found again."""
    return [only(side.models[0]), only(side.models[1]), SHARED]


def replication(comparison: Comparison) -> pl.DataFrame:
    """Per dictionary, criterion and call: how many findings the other dictionary has, too.

    replicated: have a counterpart that is called the same; mutual: those that are each other's
    best match; chance: what `share` would be if calls had nothing to do with counterparts, that of
    findings with one times that of the other's firing features that are called so; median: of the
    matches' cosine or correlation. `to_*`: what the counterparts of all findings are called.
    """
    criteria: tuple[By, By] = ("direction", "activity")
    lines = [
        _replicated(comparison, by, number, call)
        for number in (0, 1)
        for by in criteria
        for call in findings(comparison.first)
    ]
    return pl.DataFrame(lines, infer_schema_length=None)


def kinds(comparison: Comparison) -> list[str]:
    """All that the match of a feature may be called."""
    return [*findings(comparison.first), OTHER, RARE, NOTHING]


def _replicated(comparison: Comparison, by: By, number: int, call: str) -> dict[str, Any]:
    sides = comparison.first, comparison.other
    side, facing = sides[number], sides[1 - number]
    called = np.array(side.called) == call
    met = np.array(comparison.counterparts(by, number))[called]
    mutual = comparison.matches(by)[number].mutual[called]
    scores = comparison.scores(by, number)[called]
    scores = scores[~np.isnan(scores)]
    features, again, base_rate = len(met), met == call, facing.share_called(call)
    chance = None
    if features and base_rate is not None:
        chance = float((met != NOTHING).mean()) * base_rate
    return {
        "dictionary": side.name,
        "against": facing.name,
        "by": by,
        "called": call,
        "features": features,
        "replicated": int(again.sum()),
        "share": float(again.mean()) if features else None,
        "chance": chance,
        "mutual": int((again & mutual).sum()),
        "median": float(np.median(scores)) if len(scores) else None,
        **{f"to_{kind}": int((met == kind).sum()) for kind in kinds(comparison)},
    }
