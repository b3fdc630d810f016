"""Shows a feature on the terminal. Text of the corpus is shown, never understood as markup, and
characters that would move the cursor or turn the writing around are replaced."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from analyze.features.card import Card, Line

SHADES = ("#fde9d9", "#fdc899", "#fba35c", "#f47b20")  # behind weak to strong activations
FAINT = 0.02  # strengths below it are not coloured
LONGEST = 160  # characters of a piece that are shown
BAR, LABELS = 24, 6
MOST_LINES, MOST_COLUMNS = 12, 7
MOVING = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
SHOWN_AS = {"\n": "↵", "\t": "⇥", "\r": "␍"}
QUANTILES = ("q10", "q50", "q90", "q99", "max")
KEYS = (*("feature", "group", "claimed_for"), *("density", "fires", "activation_max"))  # said above


def show(card: Card, console: Console) -> None:
    """Prints a card."""
    for part in _parts(card, plain=console.color_system is None):
        console.print(part, highlight=False)


def visible(text: str) -> str:
    """The text on one line, with nothing in it that a terminal obeys."""
    return MOVING.sub(lambda found: SHOWN_AS.get(found[0], "\ufffd"), text)


def _parts(card: Card, plain: bool) -> Iterator[RenderableType]:
    yield _heading(card)
    yield _labels(card)
    for mirror in card.mirrors:
        yield Text(f"mirror     {_mirror(card.number, mirror)}")
    for name, lines in groupby(card.contexts, key=lambda line: str(line["band"])):
        yield Text(f"\n{_band(name)}", style="bold")
        yield _grid([(f"{line['activation']:5.2f}", _context(line, plain)) for line in lines])
    if card.tokens:
        yield Text("\nlogit lens", style="bold")
        yield _lens(card)
    if card.neighbours:
        yield Text("\nnearest decoder directions (cosine)", style="bold")
        yield _neighbours(card)
    for name, found in card.found.items():
        yield Text(f"\n{name}", style="bold")
        yield from _found(found)
    for note in card.notes:
        yield Text(f"\nnote: {visible(note)}", style="yellow")


def _heading(card: Card) -> Text:
    own = card.feature
    text = Text()
    text.append(f"feature {card.number}", style="bold")
    text.append(f"   group {own['group']}   claimed for {own['claimed_for']}\n")
    if not own["fires"]:
        return text.append("fires      on no row of the store")
    text.append(f"fires      on {own['fires']:,} rows, {own['density']:.3%} of all\n")
    values = [f"{name} {own[f'activation_{name}']:.3g}" for name in QUANTILES]
    return text.append(f"activation {'   '.join(values)}")


def _labels(card: Card) -> Text:
    """A bar for each label that has a share of the feature's firings, the largest first."""
    shares = {
        name.removeprefix("share_"): value
        for name, value in card.feature.items()
        if name.startswith("share_") and value > 0
    }
    ranked = sorted(shares.items(), key=lambda share: -share[1])[:LABELS]
    wide = max((len(visible(name)) for name, _ in ranked), default=0)
    text = Text(no_wrap=True)
    for number, (name, share) in enumerate(ranked):
        text.append(f"{'' if number else 'labels':<10} {visible(name):<{wide}} ")
        text.append("█" * max(1, round(BAR * share)), style=SHADES[-1])
        text.append(f" {share:.1%}\n")
    text.rstrip()
    return text


def _mirror(number: int, line: Line) -> str:
    other = line["feature_b"] if line["feature_a"] == number else line["feature_a"]
    correlation = line["correlation"]
    likeness = f"jaccard {line['jaccard']:.2f}" + (
        "" if correlation is None else f", correlation {correlation:.2f}"
    )
    return f"feature {other} of the other model fires on the same rows ({likeness})"


def _band(name: str) -> str:
    return "largest activations" if name == "top" else f"activations, {name}"


def _context(line: Line, plain: bool) -> Text:
    """The text with the strength of every piece behind it; without colours the peak in « »."""
    text = Text()
    for place, (piece, strength) in enumerate(zip(line["pieces"], line["strengths"], strict=True)):
        peak, shown = place == line["peak"], visible(_shortened(piece))
        if plain:
            text.append(f"«{shown}»" if peak else shown)
            continue
        shade = SHADES[min(len(SHADES) - 1, int(strength * len(SHADES)))]
        style = f"#000000 on {shade}" if strength >= FAINT or peak else ""
        text.append(shown, style=f"bold underline {style}" if peak else style)
    source = f"{visible(line['label'])}, document\u00a0{line['document']}"
    return text.append(f"   {source}", style="dim")


def _shortened(piece: str) -> str:
    if len(piece) <= LONGEST:
        return piece
    return f"{piece[: LONGEST // 2]} … {piece[-LONGEST // 2 :]}"


def _lens(card: Card) -> Table:
    rows = []
    for (model, promoted), lines in groupby(
        card.tokens, key=lambda line: (line["model"], line["promoted"])
    ):
        text = Text()
        for line in lines:
            text.append(visible(line["token"]).replace(" ", "·"), style="bold")
            text.append(f" {line['logit']:.1f}   ", style="dim")
        rows.append((f"{model} {'promotes' if promoted else 'suppresses'}", text))
    return _grid(rows)


def _neighbours(card: Card) -> Table:
    rows = []
    for model, lines in groupby(card.neighbours, key=lambda line: str(line["model"])):
        near = [f"{line['neighbour']} ({line['cosine']:.2f})" for line in lines]
        rows.append((model, Text("   ".join(near))))
    return _grid(rows)


def _grid(rows: list[tuple[str, Text]]) -> Table:
    """A word before each text, the texts below each other."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column()
    for word, text in rows:
        grid.add_row(Text(f"  {word}"), text)
    return grid


def _found(lines: list[Line]) -> Iterator[RenderableType]:
    """What all lines have in common as words, what differs as a table."""
    columns = [name for name in lines[0] if name not in KEYS and not name.startswith("share_")]
    known = [name for name in columns if any(line[name] is not None for line in lines)]
    same = [name for name in known if all(line[name] == lines[0][name] for line in lines)]
    if same:
        words = [f"{name} {_word(lines[0][name])}" for name in same]
        yield Padding(Text("   ".join(words)), (0, 0, 0, 2))
    other = [name for name in known if name not in same][:MOST_COLUMNS]
    if other:
        table = Table(*other, box=None, padding=(0, 1))
        for line in lines[:MOST_LINES]:
            table.add_row(*(Text(_word(line[name])) for name in other))
        yield Padding(table, (0, 0, 0, 2))


def _word(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.3g}" if isinstance(value, float) else visible(str(value))
