"""Contexts as the page keeps them: runs of text, so that silence costs one string, not many."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from analyze.analysis import Analysis
from analyze.contexts import context_of
from analyze.page.embed import number
from analyze.page.lines import Line

# A run is a text on which the feature is silent, or [text, strength], or [text, strength, 1]: peak.
Run = str | list[Any]
SILENT = 0.005  # strengths below it are not drawn
LONGEST_PIECE, LONGEST_SIDE = 400, 4000  # characters
CUT = "…"
SNIPPET = 70  # characters on either side of the peak
TOP = "top"


@dataclass(frozen=True)
class Shown:
    """One context; cut: whether text was left out because a stretch of it was very long."""

    document: int
    label: str
    activation: float | None
    runs: list[Run]
    cut: bool


@dataclass(frozen=True)
class Band:
    """Contexts of a band of activations: the top, or between two quantiles."""

    name: str
    contexts: list[Shown]


def bands_of(lines: list[Line]) -> list[Band]:
    """Contexts of a feature from its lines of the table, the top band first."""
    found: dict[str, list[Shown]] = {}
    for line in sorted(lines, key=lambda line: line.get("rank") or 0):
        peak = line.get("peak")
        pieces, strengths = line.get("pieces") or [], line.get("strengths") or []
        runs, cut = to_runs(pieces, strengths, -1 if peak is None else peak)
        if not runs:
            continue
        shown = Shown(
            line.get("document", 0),
            line.get("label") or "",
            number(line.get("activation")),
            runs,
            cut,
        )
        found.setdefault(line.get("band") or TOP, []).append(shown)
    ordered = sorted(found, key=lambda name: (name != TOP, -_lower_edge(name)))
    return [Band(name, found[name]) for name in ordered]


def band_of_store(analysis: Analysis, feature: int, reach: int) -> list[Band]:
    """The top band, read from the store: where no table of contexts has been made."""
    contexts = []
    for row, value in analysis.top.of(feature):
        found = context_of(analysis.store, analysis.dictionary, feature, row, value, reach)
        peak = next((n for n, piece in enumerate(found.pieces) if piece.peak), -1)
        pieces = [piece.text for piece in found.pieces]
        runs, cut = to_runs(pieces, [piece.strength for piece in found.pieces], peak)
        contexts.append(Shown(found.document, found.label, number(found.activation), runs, cut))
    return [Band(TOP, contexts)] if contexts else []


def to_runs(pieces: list[str], strengths: list[float], peak: int) -> tuple[list[Run], bool]:
    """Joins pieces on which the feature is silent; very long ones are cut, and it is said."""
    runs: list[Run] = []
    silence = ""
    cut = False
    for place, piece in enumerate(pieces):
        strength = strengths[place] if place < len(strengths) else 0.0
        if not (strength >= SILENT or place == peak):  # NaN is silent, too
            silence += piece
            continue
        if silence:
            runs.append(silence)
            silence = ""
        text = _shortened(piece, LONGEST_PIECE // 2, LONGEST_PIECE // 2)
        cut |= text != piece
        run: list[Any] = [text, round(min(1.0, max(0.0, strength)), 2) if strength >= 0 else 0.0]
        runs.append([*run, 1] if place == peak else run)
    if silence:
        runs.append(silence)
    sides = [_side(run, place, len(runs)) for place, run in enumerate(runs)]
    return sides, cut or sides != runs


def snippet_of(bands: list[Band]) -> list[str]:
    """Text before the first context's peak, the peak, and the text behind it; empty without one."""
    if not bands:
        return []
    runs = bands[0].contexts[0].runs
    texts = [run if isinstance(run, str) else run[0] for run in runs]
    peak = next((n for n, run in enumerate(runs) if len(run) == 3 and isinstance(run, list)), 0)
    before, behind = "".join(texts[:peak]), "".join(texts[peak + 1 :])
    return [before[-SNIPPET:], texts[peak][:SNIPPET], behind[:SNIPPET]]


def _side(run: Run, place: int, of: int) -> Run:
    """A silent stretch, of which the ends next to firing matter."""
    if not isinstance(run, str):
        return run
    head = 0 if place == 0 else LONGEST_SIDE // 2
    tail = 0 if place == of - 1 else LONGEST_SIDE // 2
    return _shortened(run, head or LONGEST_SIDE // 2 * (of == 1), tail)


def _shortened(text: str, head: int, tail: int) -> str:
    if len(text) <= head + tail:
        return text
    return text[:head] + CUT + (text[-tail:] if tail else "")


def _lower_edge(band: str) -> float:
    """Where a band such as 50-75% begins; bands of other names come last."""
    digits = band.partition("-")[0].strip("%")
    try:
        return float(digits)
    except ValueError:
        return -1.0
