"""Results of the toy benchmark: kept line by line, summed up over seeds, written as tables.

results.jsonl has one line per trained dictionary, settings.json what they were trained with, so
that a benchmark that was cut short goes on, and one with other settings is refused.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import TypeAdapter

from benchmarks.toy_run import ToyResult
from benchmarks.toy_score import Verdict
from pipeline.errors import ConfigError

KEYS = ("features", "recipe")
COLUMNS = {
    "recall_a": "recall A-only",
    "recall_b": "recall B-only",
    "recall_shared": "recall shared",
    "norm_claimed": "claimed by norm",
    "norm_fpr": "FPR by norm",
    "norm_recall": "recall of claims by norm",
    "group_claimed": "claimed by group",
    "group_fpr": "FPR by group",
    "group_recall": "recall of claims by group",
    "fve_a": "FVE A",
    "fve_b": "FVE B",
    "dead": "dead",
    "half_step": "half step",
}
_RESULT = TypeAdapter(ToyResult)


def check_settings(out: Path, settings: dict[str, Any]) -> None:
    """Keeps the settings with the results. Raises ConfigError if those there had others."""
    file = out / "settings.json"
    now = json.loads(json.dumps(settings))
    if not file.exists():
        out.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(now, indent=1))
    begun = json.loads(file.read_text())
    for key in sorted(now.keys() | begun.keys()):
        if now.get(key) != begun.get(key):
            raise ConfigError(
                f"{file}: was written with {key} {begun.get(key)!r}, now {now.get(key)!r}; "
                "name another folder with --out, or delete this one"
            )


def read_results(out: Path) -> list[ToyResult]:
    """What has been trained so far; a last line that was cut short does not count."""
    file = out / "results.jsonl"
    lines = file.read_text().split("\n")[:-1] if file.exists() else []
    return [_RESULT.validate_json(line) for line in lines]


def append_results(out: Path, results: Sequence[ToyResult]) -> None:
    """Adds lines behind the last whole one."""
    file = out / "results.jsonl"
    kept = file.read_text() if file.exists() else ""
    kept = kept[: kept.rfind("\n") + 1]
    added = "".join(json.dumps(asdict(result)) + "\n" for result in results)
    file.with_suffix(".part").write_text(kept + added)
    file.with_suffix(".part").replace(file)


def table_of(results: Sequence[ToyResult]) -> pl.DataFrame:
    """One line per dictionary, sorted by features, recipe as trained, and seed."""
    order = list(dict.fromkeys(result.recipe for result in results))
    chosen = sorted(results, key=lambda r: (r.features, order.index(r.recipe), r.seed))
    table = pl.DataFrame([_flat(result) for result in chosen], infer_schema_length=None)
    return table.with_columns(pl.col(pl.Null).cast(pl.Float64))


def summary_of(table: pl.DataFrame) -> pl.DataFrame:
    """Mean and standard deviation over seeds, `x` and `x_std` for each measure x.

    Seeds for which a measure is not defined (an FPR of no claim) are left out of it.
    """
    measures = [name for name in table.columns if name not in (*KEYS, "seed")]
    return table.group_by(KEYS, maintain_order=True).agg(
        pl.len().alias("seeds"),
        *(pl.col(name).mean() for name in measures),
        *(pl.col(name).std().alias(f"{name}_std") for name in measures),
    )


def markdown(summary: pl.DataFrame) -> str:
    """The table, mean ± standard deviation."""
    lines = [
        "| features | recipe | " + " | ".join(COLUMNS.values()) + " |",
        "|---" * (len(COLUMNS) + 2) + "|",
    ]
    for row in summary.iter_rows(named=True):
        cells = [_cell(name, row[name], row[f"{name}_std"]) for name in COLUMNS]
        lines.append(f"| {row['features']:,} | `{row['recipe']}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(name: str, mean: float | None, deviation: float | None) -> str:
    if mean is None:
        return "-"
    digits = {"half_step": 0, "norm_claimed": 1, "group_claimed": 1}.get(name, 2)
    spread = "" if deviation is None else f" ± {deviation:.{digits}f}"
    return f"{mean:,.{digits}f}{spread}"


def _flat(result: ToyResult) -> dict[str, Any]:
    recall = {f"recall_{owner}": share for owner, share in asdict(result.score.recall).items()}
    return {
        "features": result.features,
        "recipe": result.recipe,
        "seed": result.seed,
        **recall,
        **_of_verdict("norm", result.score.by_norm),
        **_of_verdict("group", result.score.by_group),
        "fve_a": result.fve_a,
        "fve_b": result.fve_b,
        "l0": result.l0,
        "dead": result.dead,
        "half_step": result.half_step,
    }


def _of_verdict(name: str, verdict: Verdict | None) -> dict[str, Any]:
    recall = None if verdict is None else verdict.recall
    return {
        f"{name}_claimed": None if verdict is None else verdict.claimed,
        f"{name}_false": None if verdict is None else verdict.false,
        f"{name}_fpr": None if verdict is None else verdict.false_positive_rate,
        f"{name}_precision": None if verdict is None else verdict.precision,
        f"{name}_recall": None if recall is None else recall.exclusive,
        f"{name}_recall_a": None if recall is None else recall.a,
        f"{name}_recall_b": None if recall is None else recall.b,
    }


def curves_of(results: Sequence[ToyResult]) -> pl.DataFrame:
    """Learning curves: features, recipe, step; exclusive and shared recall, mean and `_std`."""
    points = pl.DataFrame(
        [
            {"features": one.features, "recipe": one.recipe, "seed": one.seed, **asdict(point)}
            for one in results
            for point in one.curve
        ],
        infer_schema_length=None,
    )
    found = points.group_by(*KEYS, "step", maintain_order=True).agg(
        pl.col("exclusive", "shared").mean(),
        pl.col("exclusive", "shared").std().name.suffix("_std"),
    )
    return found.sort("features", "step", maintain_order=True)
