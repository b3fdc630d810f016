"""summary.json: the few numbers of a run that a script would read."""

from __future__ import annotations

from typing import Any

import polars as pl

from analyze.analysis import Analysis
from analyze.config import AnalyzeConfig
from analyze.norms import bin_counts, group_summary
from analyze.tables import Tables
from analyze.verdict.caution import caution
from analyze.verdict.judge import EXCLUSIVE, fdr_of


def summarize(
    main: Analysis, baselines: list[Analysis], tables: Tables, config: AnalyzeConfig
) -> dict[str, Any]:
    """FVE, dead and paired fractions per model; the planted table; groups; baselines.

    `planted` counts, for each model, those of its claimed features that fire on the domain only
    it was trained on; keys of baselines carry the name of what they are (`crosscoder_a`).
    `exclusive`: what the verdict calls at the FDR, null where there is none; its `caution`, what to
    know before it is believed.
    """
    store = main.store
    planted: dict[str, int] = {}
    planted_of: dict[str, int] = {}
    for analysis in [main, *baselines]:
        prefix = "" if analysis is main else f"{_kind(analysis, baselines)}_"
        for count in analysis.planted:
            planted[prefix + count.model] = count.fires_there
            planted_of[prefix + count.model] = count.of
    return {
        "rows": store.rows,
        "documents": len(store.documents),
        "recipe": main.recipe,
        "fve": main.fve,
        "dead_fraction": main.dead_fraction,
        "paired_fraction": {model: store.paired_fraction(model) for model in main.models},
        "l0": main.l0,
        "held_out_rows": main.held_out_rows,
        "planted": planted,
        "planted_of": planted_of,
        "groups": group_summary(main.table).to_dicts(),
        "relative_decoder_norm_bins": bin_counts(main.table),
        "exclusive": _exclusive(main, tables, config),
        "claimed_features": {claim.model: claim.features for claim in main.claims},
        "baselines": {
            analysis.folder.name: {
                "recipe": analysis.recipe,
                "fve": analysis.fve,
                "dead_fraction": analysis.dead_fraction,
                "l0": analysis.l0,
                "relative_decoder_norm_bins": bin_counts(analysis.table),
            }
            for analysis in baselines
        },
    }


def _exclusive(main: Analysis, tables: Tables, config: AnalyzeConfig) -> dict[str, Any] | None:
    """Per model: candidates, those called exclusive, and of these, those on its own domain."""
    judged = tables.read("exclusivity")
    if judged is None:
        return None
    lines = []
    for model in main.models:
        own = judged.filter(pl.col("claimed_for") == model)
        found = own.filter(pl.col("verdict") == EXCLUSIVE)
        line: dict[str, Any] = {"model": model, "candidates": own.height, "exclusive": found.height}
        if model in config.planted:
            label = config.planted[model]
            ratios = main.firing.rate_ratio(main.firing.labels.names.index(label))
            there = ratios[found["feature"].to_numpy()] >= config.planted_ratio
            line["on_own_domain"] = int(there.sum())
        lines.append(line)
    return {
        "fdr": fdr_of(judged, config),
        "caution": caution(main.dictionary),
        "models": lines,
    }


def _kind(analysis: Analysis, baselines: list[Analysis]) -> str:
    """`crosscoder` for the one plain crosscoder, else the name of the dictionary's folder."""
    plain = [other for other in baselines if other.recipe.endswith("crosscoder")]
    return "crosscoder" if plain == [analysis] else analysis.folder.name
