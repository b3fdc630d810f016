"""The verdict per feature: evidence against its nulls, p, q, a word, and the reason in a sentence.

"Exclusive" means: no linear counterpart in the other model's activations at these hookpoints, on
this corpus. It is called at a false-discovery rate that the user asks for, and only where the other
model's activations tell less than half (`counterpart`) of what the own ones tell of the feature:
with many rows the smallest difference is significant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from analyze.config import AnalyzeConfig
from analyze.verdict.evidence import BESIDE, EVIDENCE
from analyze.verdict.significance import conditional_p, false_discovery_q, largest
from pipeline.errors import ConfigError

EXCLUSIVE, NOT_SHOWN, TOO_RARE = "exclusive", "not shown", "too rare"
LEVELS = (0.01, 0.05, 0.1, 0.2)


def copy_null(tables: Sequence[pl.DataFrame], models: tuple[str, str]) -> pl.DataFrame:
    """The null of dictionaries that were trained on a pair without differences.

    There every feature has a linear counterpart in the other model, so that all say how well one
    can be read from it; of direction only its candidates tell, for the others are decoded there.
    The copy is blurred and the base is not: what is read from the worse of the two counts.
    """
    found = pl.concat(tables).filter(pl.col("readout_ratio").is_not_null() & (pl.col("fires") > 0))
    ratio = pl.col("readout_ratio")
    worse = pl.when(ratio > 1).then(1 / ratio).otherwise(ratio)
    direction = pl.when("candidate").then("direction")
    return _both_ways(found.select("fires", readout_ratio=worse, direction=direction), models)


def shared_null(table: pl.DataFrame, models: tuple[str, str]) -> pl.DataFrame:
    """The dictionary's own shared features: what a linear counterpart looks like in this pair.

    Each is read from either model. Of direction nothing follows: both models decode them.
    """
    found = table.filter(pl.col("shared") & (pl.col("readout_ratio") > 0))
    sides = []
    for model in models:
        ratio = pl.col("readout_ratio")
        turned = pl.when(pl.col("claimed_for") == model).then(ratio).otherwise(1 / ratio)
        nothing = pl.lit(None, pl.Float64)
        side = found.select("fires", readout_ratio=turned, direction=nothing)
        sides.append(side.with_columns(claimed_for=pl.lit(model)))
    return pl.concat(sides)


def _both_ways(lines: pl.DataFrame, models: tuple[str, str]) -> pl.DataFrame:
    return pl.concat([lines.with_columns(claimed_for=pl.lit(model)) for model in models])


def judge(
    table: pl.DataFrame, nulls: Mapping[str, pl.DataFrame], config: AnalyzeConfig
) -> pl.DataFrame:
    """One line per candidate, strongest first: evidence, a p-value for each, p, q, verdict, reason.

    nulls: by name, lines of evidence (claimed_for, fires, readout_ratio, direction) of features
    that are not exclusive. Raises ConfigError where evidence that is asked for has no null.
    """
    found = table.filter("candidate").sort("feature")
    tested = (found["fires"] >= config.min_fires).to_numpy()
    p_values = {name: _p_of(found, name, nulls) for name in config.evidence}
    p = largest(list(p_values.values()))
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
    reasons = [_reason(line, list(p_values), config) for line in judged.to_dicts()]
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
    return 1 / (1 + min(sizes))


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
        sides = []
        for null in _known(nulls, evidence):
            side = null.filter((pl.col("claimed_for") == model) & pl.col(evidence).is_not_null())
            fires, null_fires = own["fires"].to_numpy(), side["fires"].to_numpy()
            observed, values = _numbers(own, evidence), _numbers(side, evidence)
            sides.append(conditional_p(observed, fires, values, null_fires))
        p[here] = largest(sides)
    return p


def _known(nulls: Mapping[str, pl.DataFrame], evidence: str) -> list[pl.DataFrame]:
    found = [null for null in nulls.values() if null[evidence].drop_nulls().len()]
    if not found:
        raise ConfigError(
            f"analyze.evidence: {evidence} has no null (in use: {', '.join(nulls) or 'none'}); "
            "leave it out, or add another to analyze.nulls"
        )
    return found


def _reason(line: dict[str, object], evidence: list[str], config: AnalyzeConfig) -> str:
    if line["verdict"] == TOO_RARE:
        return f"fires on {line['fires']} rows, fewer than {config.min_fires}"
    said = {n: f"{_words(n)} {_number(line[n])} (p {_number(line[f'p_{n}'])})" for n in evidence}
    if line["verdict"] == EXCLUSIVE:
        return "; ".join(said.values())
    if line["readout_ratio"] is None:
        return "readout ratio unknown: its own model's activations do not tell of it either"
    if not _value(line["readout_ratio"]) < config.counterpart:
        return f"has a counterpart: readout ratio {_number(line['readout_ratio'])}"
    worst = max(evidence, key=lambda name: _value(line[f"p_{name}"]))
    return f"{said[worst]} is not beyond what the null shows"


def _words(name: str) -> str:
    return {"readout_ratio": "readout ratio", "direction": "best other direction"}[name]


def _number(value: object) -> str:
    return "unknown" if value is None else f"{value:.2g}"


def _value(value: object) -> float:
    return 1.0 if value is None else float(value)  # type: ignore[arg-type]


def _numbers(table: pl.DataFrame, name: str) -> np.ndarray:
    return table[name].cast(pl.Float64).fill_null(np.nan).to_numpy()
