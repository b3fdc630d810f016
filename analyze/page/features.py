"""Reads everything that is known of each feature out of the analysis and the tables.

The page's size is bounded: once the features' details have filled `DETAIL_BYTES`, further ones
keep their numbers and a few contexts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from analyze.analysis import Analysis
from analyze.config import AnalyzeConfig
from analyze.page.contexts import Band, band_of_store, bands_of, snippet_of
from analyze.page.embed import embedded, number, shortened
from analyze.page.evidence import Evidence, evidence_of, without_repeats
from analyze.page.feature import Feature, FeatureDetail, FeatureLine, Near, Token, Tokens
from analyze.page.lines import Line, Lines, largest
from analyze.page.steering import curves_of, prompts_of
from analyze.pairing import claimed_for
from analyze.tables import Tables

DETAIL_BYTES = 10_000_000
FEW_TOKENS, LONGEST_TOKEN, LONGEST_EXPLANATION = 5, 60, 600
QUANTILES = (0.1, 0.5, 0.9, 0.99)
CLAIM = "claim"
BY_FEATURE = (
    *("features", "contexts", "tokens", "neighbours", "compare", "scaling", "transfer"),
    *("exclusivity", "steer", "steer_texts", "steer_tokens", "explanations"),
)
NORMS = ("tag", "decoder_", "encoder_", "relative_", "norm_difference")
COMPARED = ("similarity", "cosine", "correlation", "mutual", "called")


class Features:
    """Reads the tables once, for the features that are shown."""

    def __init__(
        self, analysis: Analysis, tables: Tables, config: AnalyzeConfig, shown: list[int]
    ) -> None:
        self._analysis, self._config, self._shown = analysis, config, shown
        self._norms = Lines(analysis.table, shown)
        found = {name: tables.read(name) for name in BY_FEATURE}
        self._tables = {name: Lines(table, shown) for name, table in found.items()}
        self._there = {name for name, table in found.items() if table is not None}
        mirrors = tables.read("mirrors")
        self._mirror_sides = [Lines(mirrors, shown, f"feature_{side}") for side in "ab"]
        self._claims = {feature for claim in analysis.claims for feature in claim.features}
        firing = analysis.firing
        self._shares_FL = firing.shares()
        self._quantiles_FQ = firing.quantiles(list(QUANTILES))
        names = firing.labels.names
        labels = [label for label in config.planted.values() if label in names]
        self._ratios = {label: firing.rate_ratio(names.index(label)) for label in labels}
        owners = claimed_for(analysis.dictionary)
        self._owned = {model: owned.cpu().numpy() for model, owned in owners.items()}

    def read(self) -> Iterator[Feature]:
        """Every feature that is shown, in order."""
        size = 0
        for feature in self._shown:
            detail = self._detail(feature)
            line = self._line(feature, detail)
            text = embedded(detail if size < DETAIL_BYTES else detail.shorter())
            size += len(text)
            yield Feature(line, text)

    def _line(self, feature: int, detail: FeatureDetail) -> FeatureLine:
        norms, verdict = self._norms.first(feature), self._tables["exclusivity"].first(feature)
        model, shares = self._model(feature), self._shares_FL[feature]
        tokens = next((found.promoted for found in detail.tokens if found.model == model), [])
        label = int(np.argmax(shares)) if detail.fires else None
        ratio, direction = verdict.get("readout_ratio"), verdict.get("direction")
        if ratio is None:
            ratio = largest(self._tables["transfer"].of(feature), "readout_ratio")
        if direction is None:
            direction = largest(self._tables["scaling"].of(feature), "direction")
        return FeatureLine(
            number=feature,
            model=model,
            group=norms["group"],
            verdict=self._verdict(feature, verdict),
            q=number(verdict.get("q")),
            r=number(norms["relative_decoder_norm"]),
            ratio=number(ratio),
            direction=number(direction),
            density=number(norms["density"]),
            label=label,
            share=None if label is None else number(float(shares[label])),
            tokens=[token.text for token in tokens[:FEW_TOKENS]],
            snippet=snippet_of(detail.bands),
            explanation=shortened(
                self._tables["explanations"].first(feature).get("explanation"), LONGEST_EXPLANATION
            ),
        )

    def _detail(self, feature: int) -> FeatureDetail:
        norms, of = self._norms.first(feature), {n: t.of(feature) for n, t in self._tables.items()}
        verdict = self._tables["exclusivity"].first(feature)
        label = self._config.planted.get(self._model(feature))
        return FeatureDetail(
            number=feature,
            fires=norms["fires"],
            largest=number(norms["activation_max"]),
            quantiles=[number(value) for value in self._quantiles_FQ[feature].tolist()],
            p=number(verdict.get("p")),
            reason=verdict.get("reason") or "",
            own_label=label,
            own_ratio=self._own_ratio(feature, label),
            shares=[round(share, 4) for share in self._shares_FL[feature].tolist()],
            bands=self._bands(feature, of["contexts"]),
            tokens=_tokens(of["tokens"]),
            neighbours=_near(of["neighbours"], "neighbour", ["cosine"]),
            mirrors=self._mirrors(feature),
            compared=_compared(of["compare"]),
            evidence=_evidence(norms, of),
            curves=curves_of(of["steer"], of["steer_tokens"]),
            prompts=prompts_of(of["steer_texts"]),
        )

    def _model(self, feature: int) -> str:
        """The model that a feature is claimed for."""
        return next(model for model, owned in self._owned.items() if owned[feature])

    def _verdict(self, feature: int, line: Line) -> str:
        if "exclusivity" in self._there:
            return line.get("verdict") or ""
        return CLAIM if feature in self._claims else ""

    def _own_ratio(self, feature: int, label: str | None) -> float | None:
        if label not in self._ratios:
            return None
        ratio = float(self._ratios[label][feature])
        return -1.0 if math.isinf(ratio) else number(ratio)

    def _bands(self, feature: int, lines: list[Line]) -> list[Band]:
        if "contexts" in self._there:
            return bands_of(lines)
        if feature in self._claims:
            return band_of_store(self._analysis, feature, self._config.context_rows)
        return []

    def _mirrors(self, feature: int) -> list[Near]:
        measures = ["jaccard", "correlation", "both"]
        first, second = self._mirror_sides
        found = _near(first.of(feature), "feature_b", measures)
        found += _near(second.of(feature), "feature_a", measures)
        return found or _near(self._tables["features"].of(feature), "mirror", ["mirror_jaccard"])


def _tokens(lines: list[Line]) -> list[Tokens]:
    found = []
    ranked = sorted(lines, key=lambda line: line.get("rank") or 0)
    for model in dict.fromkeys(line.get("model") for line in lines):
        own = [line for line in ranked if line.get("model") == model]
        promoted, suppressed = (
            [_token(line) for line in own if bool(line.get("promoted", True)) is wanted]
            for wanted in (True, False)
        )
        found.append(Tokens(str(model), promoted, suppressed))
    return found


def _token(line: Line) -> Token:
    return Token(shortened(line.get("token"), LONGEST_TOKEN), number(line.get("logit")))


def _near(lines: list[Line], column: str, measures: list[str]) -> list[Near]:
    """Features that a column names, with those measures that are known."""
    found = []
    for line in sorted(lines, key=lambda line: line.get("rank") or 0):
        if line.get(column) is not None:
            values = {name: line.get(name) for name in measures}
            known = {
                name: value if isinstance(value, bool | str) else number(value)
                for name, value in values.items()
            }
            likeness = {name: value for name, value in known.items() if value is not None}
            model = str(line.get("model") or line.get("other") or "")
            found.append(Near(int(line[column]), model, likeness))
    return found


def _compared(lines: list[Line]) -> list[Near]:
    """The matches of another dictionary: by direction, and by activity."""
    found = []
    for prefix in ("other", "active"):
        measures = ["similarity", *(f"{prefix}_{name}" for name in COMPARED)]
        for near in _near(lines, f"{prefix}_feature", measures):
            plain = {name.removeprefix(f"{prefix}_"): v for name, v in near.likeness.items()}
            found.append(Near(near.feature, near.model, plain))
    return found


def _evidence(norms: Line, of: dict[str, list[Line]]) -> list[Evidence]:
    compared = {name: value for name, value in norms.items() if name.startswith(NORMS)}
    measured = [
        *evidence_of("latent scaling", of["scaling"]),
        *evidence_of("transfer by an affine map", of["transfer"]),
    ]
    return [
        *without_repeats(evidence_of("verdict", of["exclusivity"]), measured),
        *measured,
        *evidence_of("norms", [compared]),
        *evidence_of("explanation", of["explanations"]),
    ]
