"""One feature as the page knows it: its line in the table, and what is shown when it is opened."""

from __future__ import annotations

from dataclasses import dataclass, replace

from analyze.page.contexts import Band
from analyze.page.evidence import Evidence
from analyze.page.steering import Curve, Prompt

FEW_CONTEXTS = 2


@dataclass(frozen=True)
class FeatureLine:
    """A feature in the table.

    verdict: a claim where there are none; r: relative decoder norm; ratio, direction: the most that
    any pair of hookpoints shows; label: number of the one with most of its firing, and that share;
    snippet: text before the first context's peak, the peak, text behind it; explanation: a language
    model's, empty without one.
    """

    number: int
    model: str
    group: str
    verdict: str
    q: float | None
    r: float | None
    ratio: float | None
    direction: float | None
    density: float | None
    label: int | None
    share: float | None
    tokens: list[str]
    snippet: list[str]
    explanation: str


@dataclass(frozen=True)
class Token:
    """A token, and what a feature's decoder adds to its logit."""

    text: str
    logit: float | None


@dataclass(frozen=True)
class Tokens:
    """Tokens that a feature promotes and suppresses most in one model, strongest first."""

    model: str
    promoted: list[Token]
    suppressed: list[Token]


@dataclass(frozen=True)
class Near:
    """Another feature; model: in whose decoder it was looked for, or which dictionary it is of."""

    feature: int
    model: str
    likeness: dict[str, float | bool | str]


@dataclass(frozen=True)
class FeatureDetail:
    """The rest.

    quantiles: of activations where it fires, at those of the page; p, reason: the verdict's;
    own_ratio: firing per row on its model's planted label over elsewhere, -1 if never elsewhere;
    shares: of its firing, by label; shortened: contexts and samples left out for the page's size.
    """

    number: int
    fires: int
    largest: float | None
    quantiles: list[float | None]
    p: float | None
    reason: str
    own_label: str | None
    own_ratio: float | None
    shares: list[float]
    bands: list[Band]
    tokens: list[Tokens]
    neighbours: list[Near]
    mirrors: list[Near]
    compared: list[Near]
    evidence: list[Evidence]
    curves: list[Curve]
    prompts: list[Prompt]
    shortened: bool = False

    def shorter(self) -> FeatureDetail:
        """The same with a few contexts of the first band, and no samples of text."""
        bands = [Band(band.name, band.contexts[:FEW_CONTEXTS]) for band in self.bands[:1]]
        return replace(self, bands=bands, prompts=[], shortened=True)


@dataclass(frozen=True)
class Feature:
    """A feature's line, and its detail as embedded JSON."""

    line: FeatureLine
    detail: str
