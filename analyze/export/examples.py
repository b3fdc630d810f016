"""The contexts of each feature, parted: those an explainer sees, and those it is tested on.

Contexts come from the table `contexts`, in turn from each band of activations, one per document.
Every third is held back, so that what an explanation is tested on is of documents that it was not
made from, and of all strengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from analyze.export.prompts import Example

EVERY = 3
NEEDED = ("feature", "band", "rank", "document", "activation", "pieces", "strengths", "peak")


@dataclass(frozen=True)
class Evidence:
    """What is known of a feature; held_back may be empty."""

    feature: int
    shown: tuple[Example, ...]
    held_back: tuple[Example, ...]


def evidence(
    contexts: pl.DataFrame, features: Sequence[int], shown: int, held_back: int
) -> list[Evidence]:
    """At most so many contexts of each kind, for those of the features that have any, in order."""
    own = contexts.filter(pl.col("feature").is_in(list(features))).select(NEEDED)
    groups = {
        int(key): part
        for (key,), part in own.sort("rank", maintain_order=True)
        .partition_by("feature", as_dict=True, maintain_order=True)
        .items()
    }
    return [
        _of(number, groups[number], shown, held_back) for number in features if number in groups
    ]


def _of(feature: int, contexts: pl.DataFrame, shown: int, held_back: int) -> Evidence:
    examples = _examples(contexts.unique("document", keep="first", maintain_order=True))
    kept = [one for n, one in enumerate(examples) if n % EVERY == EVERY - 1][:held_back]
    rest = [one for one in examples if one not in kept]
    return Evidence(feature, tuple(rest[:shown]), tuple(kept))


def _examples(contexts: pl.DataFrame) -> list[Example]:
    """Strengths on the scale of the largest activation among them, whatever scale they were on."""
    most = float(contexts["activation"].max() or 0.0)  # type: ignore[arg-type]
    found = []
    for line in contexts.iter_rows(named=True):
        at_peak = line["strengths"][line["peak"]] if line["strengths"] else 0.0
        scale = line["activation"] / (most * at_peak) if most > 0 and at_peak > 0 else 1.0
        strengths = tuple(min(1.0, strength * scale) for strength in line["strengths"])
        found.append(Example(tuple(line["pieces"]), strengths))
    return found
