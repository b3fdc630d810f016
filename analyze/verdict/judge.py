"""The verdict per feature: evidence against its nulls, p, q, a word, and the reason in a sentence.

"Exclusive" means: no linear counterpart in the other model's activations at these hookpoints, on
this corpus. It is called at a false-discovery rate that the user asks for, and only where the other
model's activations tell less than half (`counterpart`) of what the own ones tell of the feature:
with many rows the smallest difference is significant.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl

from analyze.config import AnalyzeConfig
from analyze.verdict.evidence import BESIDE, EVIDENCE, NORM_SHARE, STEERING
from analyze.verdict.significance import conditional_p, false_discovery_q, largest
from pipeline.errors import ConfigError

EXCLUSIVE, NOT_SHOWN, TOO_RARE = "exclusive", "not shown", "too rare"
LEVELS = (0.01, 0.05, 0.1, 0.2)
STEERED_NEIGHBOURS = 32
WORDS = {
    "readout_ratio": "readout ratio",
    "direction": "best other direction",
    "mapped_norm": "mapped norm",
    NORM_SHARE: "other's share of the norms",
    STEERING: "agreement of steering",
}


def judge(
    table: pl.DataFrame, nulls: Mapping[str, pl.DataFrame], config: AnalyzeConfig
) -> pl.DataFrame:
    """One line per candidate, strongest first: evidence, a p-value for each, p, q, verdict, reason.

    nulls: by name, lines of evidence (claimed_for, fires, EVIDENCE) of features that are not
    exclusive. All evidence with a null gets p-values; p is of that which `config.evidence` names.
    Raises ConfigError where evidence that is named has no null.
    """
    found = table.filter("candidate").sort("feature")
    tested = (found["fires"] >= config.min_fires).to_numpy()
    for name in config.evidence:
        _refuse_without_null(name, nulls)
    p_values = {name: _p_of(found, name, nulls) for name in EVIDENCE}
    p = largest([p_values[name] for name in config.evidence])
    q = np.full(len(p), np.nan)
    q[tested] = false_discovery_q(p[tested])
    without = _numbers(found, "readout_ratio") < config.counterpart
    verdicts = np.select([~tested, (q <= config.fdr) & without], [TOO_RARE, EXCLUSIVE], NOT_SHOWN)
    columns = ["feature", "claimed_for", "group", "relative_decoder_norm", "fires"]
    judged = found.select(*columns, *EVIDENCE, *BESIDE).with_columns(
        pl.Series("verdict", verdicts.tolist(), pl.String),
        pl.Series("p", np.where(tested, p, np.nan)),
        pl.Series("q", q),
        pl.lit(config.fdr).alias("fdr"),
        *(pl.Series(f"p_{name}", np.where(tested, v, np.nan)) for name, v in p_values.items()),
    )
    judged = judged.with_columns(pl.col(pl.Float64).fill_nan(None))
    reasons = [_reason(line, config) for line in judged.to_dicts()]
    strongest = ["q", "readout_ratio", "direction"]
    return judged.with_columns(pl.Series("reason", reasons, pl.String)).sort(
        strongest, nulls_last=True
    )


def smallest_p(nulls: Mapping[str, pl.DataFrame], config: AnalyzeConfig) -> float:
    """No p-value can be below this: 1 / (1 + n) of the smallest null in use."""
    sizes = [
        part[name].drop_nulls().len()
        for name in config.evidence
        for null in _known(nulls, name)
        for part in null.partition_by("claimed_for")
    ]
    return 1 / (1 + min((size for size in sizes if size), default=0))


def called(judged: pl.DataFrame, level: float, config: AnalyzeConfig) -> pl.DataFrame:
    """The candidates that are called exclusive at an FDR."""
    return judged.filter((pl.col("q") <= level) & (pl.col("readout_ratio") < config.counterpart))


def fdr_of(judged: pl.DataFrame, config: AnalyzeConfig) -> float:
    """The false-discovery rate that a table's verdicts were given at."""
    known = judged.height and "fdr" in judged.columns
    return float(judged["fdr"][0]) if known else config.fdr


def counts(judged: pl.DataFrame, models: tuple[str, str], config: AnalyzeConfig) -> pl.DataFrame:
    """Per model: candidates, those tested, and how many are called at each level of FDR."""
    lines = []
    for model in models:
        own = judged.filter(pl.col("claimed_for") == model)
        found = {f"at {level:.0%}": called(own, level, config).height for level in LEVELS}
        tested = own.filter(pl.col("p").is_not_null()).height
        lines.append({"model": model, "candidates": own.height, "tested": tested, **found})
    return pl.DataFrame(lines)


def _p_of(found: pl.DataFrame, evidence: str, nulls: Mapping[str, pl.DataFrame]) -> np.ndarray:
    """p-values of one piece of evidence: per model, against features that fire about as often."""
    p = np.full(found.height, np.nan)
    for model in found["claimed_for"].unique().drop_nulls():
        here = (found["claimed_for"] == model).to_numpy()
        own = found.filter(here)
        of_model = {n: t.filter(pl.col("claimed_for") == model) for n, t in nulls.items()}
        sides = [_p_against(own, null, evidence) for null in _known(of_model, evidence)]
        p[here] = np.max(sides, axis=0) if sides else np.nan
    return p


def _p_against(own: pl.DataFrame, null: pl.DataFrame, evidence: str) -> np.ndarray:
    """Against a null in which the evidence of some features is known; NaN where unknown."""
    null = null.filter(pl.col(evidence).is_not_null())
    observed, values = _numbers(own, evidence), _numbers(null, evidence)
    fires, null_fires = own["fires"].to_numpy(), null["fires"].to_numpy()
    if evidence == STEERING:  # a cosine, of which there are few
        return conditional_p(
            observed, fires, values, null_fires, logged=False, neighbours=STEERED_NEIGHBOURS
        )
    return conditional_p(observed, fires, values, null_fires)


def _known(nulls: Mapping[str, pl.DataFrame], evidence: str) -> list[pl.DataFrame]:
    return [null for null in nulls.values() if null[evidence].drop_nulls().len()]


def _refuse_without_null(evidence: str, nulls: Mapping[str, pl.DataFrame]) -> None:
    if not _known(nulls, evidence):
        raise ConfigError(
            f"analyze.evidence: {evidence} has no null (in use: {', '.join(nulls) or 'none'}); "
            "leave it out, or add another to analyze.nulls"
        )


def _reason(line: dict[str, object], config: AnalyzeConfig) -> str:
    if line["verdict"] == TOO_RARE:
        return f"fires on {line['fires']} rows, fewer than {config.min_fires}"
    evidence = config.evidence
    said = {n: f"{WORDS[n]} {_number(line[n])} (p {_number(line[f'p_{n}'])})" for n in evidence}
    if line["verdict"] == EXCLUSIVE:
        return "; ".join(said.values())
    if line["readout_ratio"] is None:
        return "readout ratio unknown: its own model's activations do not tell of it either"
    if not _value(line["readout_ratio"]) < config.counterpart:
        return f"has a counterpart: readout ratio {_number(line['readout_ratio'])}"
    worst = max(evidence, key=lambda name: _value(line[f"p_{name}"]))
    if line[f"p_{worst}"] is None:
        return f"{WORDS[worst]}: unknown, or without a null for {line['claimed_for']}"
    return f"{said[worst]} is not beyond what the null shows"


def _number(value: object) -> str:
    return "unknown" if value is None else f"{value:.2g}"


def _value(value: object) -> float:
    return 1.0 if value is None else float(value)  # type: ignore[arg-type]


def _numbers(table: pl.DataFrame, name: str) -> np.ndarray:
    return table[name].cast(pl.Float64).fill_null(np.nan).to_numpy()
