"""Which features to steer with where none is named: the strongest claims of exclusivity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from analyze.exclusive import Claim
from analyze.verdict.judge import EXCLUSIVE


@dataclass(frozen=True)
class Ranked:
    """Features of one model, strongest first, and what ranked them."""

    model: str
    rule: str
    features: list[int]


def ranked_features(
    claims: Sequence[Claim], exclusivity: pl.DataFrame | None, top: int
) -> list[Ranked]:
    """At most `top` features per model: found exclusive, by q; of a model without any, its claims.

    exclusivity: the table of verdicts, if there is one.
    """
    found = []
    for claim in claims:
        own: list[int] = []
        if exclusivity is not None:
            exclusive = (pl.col("verdict") == EXCLUSIVE) & (pl.col("claimed_for") == claim.model)
            own = exclusivity.filter(exclusive).sort("q", nulls_last=True)["feature"].to_list()
        rule = "found exclusive, by q" if own else claim.rule
        found.append(Ranked(claim.model, rule, (own or claim.features)[:top]))
    return found
