"""What steering with a feature did: curves over alpha, the tokens moved, and text written on."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from analyze.page.embed import number, shortened
from analyze.page.lines import Line

LONGEST_TEXT, LONGEST_TOKEN = 2000, 60  # characters
MEASURED = (  # a point's numbers, in its order
    *("kl_firing", "kl_silent", "kl_random_firing", "kl_random_silent"),
    *("top1_changed_firing", "top1_changed_silent"),
)


@dataclass(frozen=True)
class Point:
    """At one alpha: KL where the feature fires and is silent; of a random direction; top tokens.

    top1: share of positions whose likeliest token changes.
    """

    alpha: float
    firing: float | None
    silent: float | None
    random_firing: float | None
    random_silent: float | None
    top1_firing: float | None
    top1_silent: float | None


@dataclass(frozen=True)
class Moved:
    """Tokens that become likelier and less likely where the feature fires, at one alpha."""

    alpha: float
    raised: list[str]
    lowered: list[str]


@dataclass(frozen=True)
class Curve:
    """One steered model at one hookpoint, by alpha; positions: how many each kind is of.

    mapped: with the direction that an affine map makes of the other model's; steerable: whether
    there is a direction at all.
    """

    model: str
    hookpoint: str
    mapped: bool
    steerable: bool
    points: list[Point]
    positions_firing: int | None
    positions_silent: int | None
    moved: Moved | None


@dataclass(frozen=True)
class Sample:
    """What a model writes at one alpha."""

    alpha: float
    text: str


@dataclass(frozen=True)
class Prompt:
    """Samples that continue one prompt, by alpha; kind: firing or neutral, where it is known."""

    model: str
    mapped: bool
    kind: str
    prompt: str
    samples: list[Sample]


def curves_of(lines: list[Line], tokens: list[Line]) -> list[Curve]:
    """A curve per steered model, hookpoint and kind of direction; the feature's own model first."""
    known = [line for line in lines if number(line.get("alpha")) is not None]
    curves = []
    for own in _grouped(known, "steered", "hookpoint", "mapped"):
        first = own[0]
        model, mapped = str(first.get("steered") or ""), bool(first.get("mapped"))
        moved = [t for t in tokens if (t.get("steered"), bool(t.get("mapped"))) == (model, mapped)]
        curves.append(
            Curve(
                model=model,
                hookpoint=str(first.get("hookpoint") or ""),
                mapped=mapped,
                steerable=bool(first.get("steerable", True)),
                points=sorted((_point(line) for line in own), key=lambda point: point.alpha),
                positions_firing=first.get("positions_firing"),
                positions_silent=first.get("positions_silent"),
                moved=_moved(moved),
            )
        )
    owner = known[0].get("claimed_for") if known else None
    return sorted(curves, key=lambda curve: (curve.model != owner, curve.mapped))


def prompts_of(lines: list[Line]) -> list[Prompt]:
    """Samples by prompt, steered model and kind of direction, in the table's order."""
    known = [line for line in lines if number(line.get("alpha")) is not None]
    return [
        Prompt(
            model=str(own[0].get("steered") or ""),
            mapped=bool(own[0].get("mapped")),
            kind=" ".join(str(own[0][n]) for n in ("kind", "decoding") if own[0].get(n)),
            prompt=shortened(own[0].get("prompt"), LONGEST_TEXT),
            samples=sorted(
                (Sample(line["alpha"], shortened(line.get("text"), LONGEST_TEXT)) for line in own),
                key=lambda sample: sample.alpha,
            ),
        )
        for own in _grouped(known, "steered", "mapped", "kind", "decoding", "prompt")
    ]


def _grouped(lines: list[Line], *columns: str) -> list[list[Line]]:
    """Lines that agree in these columns, in the order in which each kind first comes."""
    found: dict[Hashable, list[Line]] = {}
    for line in lines:
        found.setdefault(tuple(line.get(name) for name in columns), []).append(line)
    return list(found.values())


def _point(line: Line) -> Point:
    return Point(line["alpha"], *(number(line.get(name)) for name in MEASURED))


def _moved(lines: list[Line]) -> Moved | None:
    """At the alpha nearest to 1, as small ones tell most of what the feature does."""
    known = [line["alpha"] for line in lines if number(line.get("alpha")) is not None]
    if not known:
        return None
    alpha = min(known, key=lambda one: (abs(one - 1), -one))
    own = sorted(
        (line for line in lines if line.get("alpha") == alpha),
        key=lambda line: line.get("rank") or 0,
    )
    raised, lowered = (
        [shortened(t.get("token"), LONGEST_TOKEN) for t in own if bool(t.get("promoted")) is wanted]
        for wanted in (True, False)
    )
    return Moved(alpha, raised, lowered)
