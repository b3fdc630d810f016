"""The top of the page: what was found, how sure that is, and whether the dictionary is any good."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from analyze.analysis import Analysis
from analyze.page.choose import EXCLUSIVE
from analyze.page.embed import number
from analyze.page.lines import Line, largest, rows
from analyze.verdict.caution import caution

ALL = "all"


@dataclass(frozen=True)
class Tile:
    """A figure with its name; model: whose it is, empty where it is of both."""

    value: str
    name: str
    model: str = ""


@dataclass(frozen=True)
class Found:
    """What is exclusive to one model: so many verdicts of `of` tested, or of so many claims."""

    model: str
    other: str
    count: int
    of: int
    untested: int
    rule: str


@dataclass(frozen=True)
class Overview:
    """judged: whether `found` are verdicts; fdr: their false-discovery rate.

    It is the configuration's, or larger where the command that made them was given another.
    caution: what to know before it is believed.

    fidelity, by_label: lines of the table, over all text and per label.
    """

    judged: bool
    fdr: float
    caution: str | None
    found: list[Found]
    health: list[Tile]
    recovered: list[Tile]
    fidelity: list[Line]
    by_label: list[Line]


def overview(
    analysis: Analysis,
    verdicts: pl.DataFrame | None,
    fidelity: pl.DataFrame | None,
    fdr: float,
) -> Overview:
    """Counts and figures; the second model's first, as the title asks."""
    lines = rows(fidelity)
    everywhere = [line for line in lines if line.get("label", ALL) == ALL]
    judged = verdicts is not None and "verdict" in verdicts.columns
    return Overview(
        judged=judged,
        fdr=max(fdr, _reached(verdicts)),
        caution=caution(analysis.dictionary),
        found=_verdicts(analysis, rows(verdicts)) if judged else _claims(analysis),
        health=_health(analysis),
        recovered=[
            Tile(_percent(line.get("loss_recovered")), f"loss recovered, {model}", model)
            for line in reversed(everywhere)
            for model in (str(line.get("model")),)
        ],
        fidelity=everywhere,
        by_label=[line for line in lines if line.get("label", ALL) != ALL],
    )


def _verdicts(analysis: Analysis, lines: list[Line]) -> list[Found]:
    first, second = analysis.models
    found = []
    for model, other in ((second, first), (first, second)):
        own = [line for line in lines if line.get("claimed_for") == model]
        tested = [line for line in own if number(line.get("p")) is not None]
        count = sum(line.get("verdict") == EXCLUSIVE for line in own)
        found.append(Found(model, other, count, len(tested), len(own) - len(tested), ""))
    return found


def _claims(analysis: Analysis) -> list[Found]:
    first, second = analysis.models
    return [
        Found(claim.model, second if claim.model == first else first, n, n, 0, claim.rule)
        for claim in reversed(analysis.claims)
        for n in (len(claim.features),)
    ]


def _health(analysis: Analysis) -> list[Tile]:
    hookpoints = {h.name: h.model for h in analysis.dictionary.hookpoints}
    tiles = []
    for place, value in reversed(analysis.fve.items()):
        shown = "–" if value is None else f"{value:.3f}"
        tiles.append(Tile(shown, f"FVE {place}", hookpoints.get(place, place)))
    for model, value in reversed(analysis.dead_fraction.items()):
        tiles.append(Tile(_percent(value), f"dead, seen by {model}", model))
    for model in reversed(analysis.models):
        paired = analysis.store.paired_fraction(model)
        tiles.append(Tile(_percent(paired), f"tokens of {model} paired", model))
    tiles.append(Tile("–" if analysis.l0 is None else f"{analysis.l0:.1f}", "L0"))
    return tiles


def _reached(verdicts: pl.DataFrame | None) -> float:
    """The largest q among the features found exclusive."""
    lines = [line for line in rows(verdicts) if line.get("verdict") == EXCLUSIVE]
    return largest(lines, "q") or 0.0


def _percent(value: float | None) -> str:
    return "–" if number(value) is None else f"{100 * (value or 0):.1f}%"
