"""The replacement test: a model whose activations are moved by features toward another model's.

h = h_base + sum over a set of features of f_j (d_j^target - d_j^base), in raw units, at every row;
the base model runs on from there, and its next-token distributions are compared with the target's
at the same rows: KL(target || replaced) and the cross entropy of the token that follows, in nats
(arXiv 2504.02922, whose base is the pre-trained model and whose target the chat model). Per pass
of texts one clean pass of each model, then one of the base model per set; never more than two
passes' logits are held, and sums are float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import polars as pl
import torch
from torch import Tensor

from analyze.causal.batches import padded_batches
from analyze.causal.memory import passes_memory
from analyze.causal.passages import Passage
from analyze.causal.replace_run import ACTIVATIONS, NONE, TARGET, Pair, Run
from analyze.causal.replace_sets import FeatureSet
from analyze.subject import Subject

BIAS = "bias"
REPLACE_COLUMNS = {
    "set": pl.String,
    "ranking": pl.String,
    "features": pl.Int64,
    "kl": pl.Float64,
    "ce": pl.Float64,
    "gap_closed": pl.Float64,
    "positions": pl.Int64,
}


def replacement_table(
    subject: Subject,
    pair: Pair,
    passages: Sequence[Passage],
    sets: Sequence[FeatureSet],
    batch_tokens: int,
    batch_rows: int,
    *,
    bias: bool = False,
    on_passes: Callable[[int], None] = lambda passes: None,
) -> pl.DataFrame:
    """REPLACE_COLUMNS, a line per set, in order, between those of no features.

    none: the base model as it is; activations: with the target's activations in place of its own;
    target: the target itself. gap_closed: 1 - kl / kl of none. bias: the difference of decoder
    biases (and of the means that the dictionary takes off) is added with every set, and alone in a
    line of that name. positions: rows that a token follows. on_passes: told how many sets each
    text has been run with. Raises ModelError as `intervene.logits` does, and where memory runs out.
    """
    lines = with_references(sets, subject.features, bias)
    sums = torch.zeros(len(lines), 2, dtype=torch.float64)
    positions = 0
    both = f"models {pair.base.name} and {pair.target.name}"
    with passes_memory(both, batch_tokens, batch_rows):
        for batch in padded_batches([p.readings[pair.base.name] for p in passages], batch_tokens):
            here = [passages[number] for number in batch.readings.tolist()]
            run = Run.of(subject, pair, here, batch_rows)
            positions += run.positions
            for number, one in enumerate(lines):
                sums[number] += run.measured(one, bias).cpu()
                on_passes(len(here))
    return _table(lines, sums, positions)


def with_references(sets: Sequence[FeatureSet], features: int, bias: bool) -> list[FeatureSet]:
    """Everything that is run, in order."""
    return [
        FeatureSet(NONE, None, None),
        *([FeatureSet(BIAS, None, np.zeros(features, bool))] if bias else []),
        *sets,
        FeatureSet(ACTIVATIONS, None, None),
        FeatureSet(TARGET, None, None),
    ]


def _table(lines: Sequence[FeatureSet], sums: Tensor, positions: int) -> pl.DataFrame:
    means = (sums / positions).tolist() if positions else [[None, None]] * len(lines)
    none = means[0][0]
    values = [
        {
            "set": one.name,
            "ranking": one.ranking,
            "features": 0 if one.members is None else int(np.count_nonzero(one.members)),
            "kl": kl,
            "ce": ce,
            "gap_closed": 1 - kl / none if none else None,
            "positions": positions,
        }
        for one, (kl, ce) in zip(lines, means, strict=True)
    ]
    return pl.DataFrame(values, schema=REPLACE_COLUMNS)
