"""What a user should know of an import's decisions, in words and as JSON values."""

from __future__ import annotations

from typing import Any

from store.importer import ImportPlan
from store.token_columns import differing


def describe(plan: ImportPlan) -> dict[str, Any]:
    """The plan as JSON values."""
    return {
        "rows": plan.rows,
        "documents": len(plan.ends),
        "bytes": plan.bytes,
        "codec": plan.schema.codec,
        "label": plan.label,
        "hookpoints": [
            {"name": h.name, "model": h.model, "width": h.width} for h in plan.schema.hookpoints
        ],
        "notes": notes(plan),
    }


def notes(plan: ImportPlan) -> list[str]:
    """One line for each thing that is not simply copied."""
    return [*_rounding(plan), *_text(plan), *_tokens(plan), *_documents(plan)]


def _rounding(plan: ImportPlan) -> list[str]:
    return [
        f"{name}: its {' and '.join(cache.rounded)} values are rounded to bfloat16 "
        "(by at most 0.4% each)"
        for name, cache in plan.caches.items()
        if cache.rounded
    ]


def _text(plan: ImportPlan) -> list[str]:
    if plan.reference is None:
        idle = "" if plan.decoder is None else "; --tokenizer has nothing to decode"
        return [f"no tokens.pt: texts are row numbers (row 0 row 1 ...){idle}"]
    if plan.decoder is None:
        return [f"texts are the token ids of {plan.reference}; for words, import with --tokenizer"]
    return [f"texts are the tokens of {plan.reference}, decoded with {plan.decoder.source}"]


def _tokens(plan: ImportPlan) -> list[str]:
    missing = [model for model in plan.schema.models if model not in plan.tokens]
    found = [f"no tokens.pt of {', '.join(missing)}: token ids are 0"] if missing else []
    for model, ids in plan.tokens.items():
        reference = plan.reference or model
        count = differing(plan.tokens[reference], ids)
        if count:
            found.append(
                f"tokens of {reference} and {model} differ in {count:,} of {plan.rows:,} rows: "
                "taken as already aligned row by row"
            )
    return found


def _documents(plan: ImportPlan) -> list[str]:
    if plan.sequences is None:
        rows = plan.schema.config["import"]["document_rows"]
        return [f"no sequence_ranges.pt: every {rows:,} rows are a document"]
    more = len(plan.ends) - plan.sequences
    return [f"long sequences were cut, into {more:,} more documents"] if more else []
