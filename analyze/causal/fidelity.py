"""How much of what a model predicts survives when the dictionary's reconstruction takes the place
of its activations: cross entropy, loss recovered, KL, agreement, by model and label.

Each model runs four times over each passage: clean, and with its activations at the rows' places
(all of its hookpoints at once) replaced by the reconstruction, by zero, and by the store's mean.
Positions that are no rows keep what they have. Loss recovered = (CE_zero - CE_reconstruction) /
(CE_zero - CE_clean) (e.g. arXiv 2404.16014), and the same with the mean in the place of zero, which
flatters less. Sums are float64; logits of two passes of one batch are held at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from analyze.causal.batches import Batch, padded_batches, put_rows, read_rows
from analyze.causal.logits import compare, cross_entropy, predictions
from analyze.causal.memory import passes_memory
from analyze.causal.passages import Passage
from analyze.causal.rebuild import Rebuilt
from analyze.subject import Subject
from harvest.models.hooked import HookedModel
from harvest.models.intervene import logits
from pipeline.errors import DictionaryError

ALL = "all"
REPLACED = ("reconstruction", "zero", "mean")
MEASURES = (
    "ce_clean",
    *(f"ce_{name}" for name in REPLACED),
    *(f"kl_{name}" for name in REPLACED),
    "top1_agreement",
)
GROUP_BATCHES = 4
"""Rows of so many forward passes are held at a time, at all hookpoints and reconstructed."""


def fidelity_table(
    subject: Subject,
    models: Mapping[str, HookedModel],
    passages: Sequence[Passage],
    batch_tokens: int,
    batch_rows: int,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> pl.DataFrame:
    """A line per model and label, first of all labels together.

    Columns: model, label, documents; rows: predictions measured, those of every row that a token
    follows; ce_clean, ce_reconstruction, ce_zero, ce_mean (nats per token), loss_recovered and
    loss_recovered_mean (null where the ablation costs nothing), kl_reconstruction, kl_zero,
    kl_mean: KL(clean || replaced), top1_agreement with the reconstruction; fve about the store's
    mean, averaged over the model's hookpoints; l0 of the whole dictionary, and dead: share of the
    features that the model sees and that fire on none of these rows. A label without predictions
    has no line. on_rows: told of the rows of each pass, rows x models in all.

    Raises DictionaryError if nothing is reconstructed, ModelError as `intervene.logits` does and
    where memory runs out.
    """
    patched = _hookpoints(subject)
    rebuilt = Rebuilt(subject)
    labels = len(subject.labels.names)
    sums = {name: np.zeros((labels, len(MEASURES))) for name in patched}
    counts = {name: np.zeros(labels, np.int64) for name in patched}
    for group in _groups(passages, GROUP_BATCHES * batch_tokens):
        of_document = subject.labels.of_document[[passage.document for passage in group]]
        of_row = np.repeat(of_document, [len(passage.rows) for passage in group]).astype(np.int64)
        batches = {
            name: padded_batches([passage.readings[name] for passage in group], batch_tokens)
            for name in models
        }
        with passes_memory(f"models {', '.join(models)}", batch_tokens, batch_rows):
            clean: dict[str, Tensor] = {}
            for name, model in models.items():
                clean.update(read_rows(model, batches[name], len(of_row)))
            x_hat = rebuilt.take(clean, of_row, batch_rows)
            for name, hookpoints in patched.items():
                model = models[name]
                replacements = _replacements(rebuilt, x_hat, hookpoints)
                for batch in batches[name]:
                    rows, values = _measured(model, batch, replacements)
                    np.add.at(sums[name], of_row[rows], values)
                    counts[name] += np.bincount(of_row[rows], minlength=labels)
                    on_rows(len(batch.rows))
    documents = np.bincount(
        subject.labels.of_document[[passage.document for passage in passages]], minlength=labels
    )
    return _table(subject, rebuilt, sums, counts, documents)


def _hookpoints(subject: Subject) -> dict[str, list[str]]:
    """The hookpoints that are reconstructed, by model."""
    dictionary = subject.dictionary
    found: dict[str, list[str]] = {}
    for number in dictionary.outputs:
        hookpoint = dictionary.hookpoints[number]
        found.setdefault(hookpoint.model, []).append(hookpoint.name)
    if not found:
        raise DictionaryError(f"{subject.folder}: it reconstructs no hookpoint")
    return found


def _groups(passages: Sequence[Passage], most_tokens: int) -> Iterator[list[Passage]]:
    """Consecutive passages whose rows are held at the same time."""
    group: list[Passage] = []
    tokens = 0
    for passage in passages:
        longest = max(len(reading.ids) for reading in passage.readings.values())
        if group and tokens + longest > most_tokens:
            yield group
            group, tokens = [], 0
        group.append(passage)
        tokens += longest
    if group:
        yield group


Replacement = dict[str, Float[Tensor, "_rows _width"]]


def _replacements(
    rebuilt: Rebuilt, x_hat: dict[str, Tensor], hookpoints: list[str]
) -> dict[str, Replacement]:
    """What takes the place of a model's rows, by hookpoint: of every row, or one line for all."""
    means = {name: rebuilt.means[name][None] for name in hookpoints}
    return {
        "reconstruction": {name: x_hat[name] for name in hookpoints},
        "zero": {name: torch.zeros_like(mean) for name, mean in means.items()},
        "mean": means,
    }


def _measured(
    model: HookedModel, batch: Batch, replacements: dict[str, Replacement]
) -> tuple[Int64[np.ndarray, " n"], Float64[np.ndarray, "n measures"]]:
    """The rows of a batch that a token follows, and each one's MEASURES."""
    at = predictions(batch)
    clean = logits(model, batch.input_ids, batch.attention_mask)
    found = {"ce_clean": cross_entropy(clean, at)}
    for replaced, by_hookpoint in replacements.items():
        edits = {}
        for name, values in by_hookpoint.items():
            here = values if len(values) == 1 else values[batch.rows.to(values.device)]
            edits[name] = put_rows(batch, here)
        changed = logits(model, batch.input_ids, batch.attention_mask, edits)
        compared = compare(clean, changed, at)
        found[f"ce_{replaced}"], found[f"kl_{replaced}"] = compared.cross_entropy, compared.kl
        if replaced == "reconstruction":
            found["top1_agreement"] = compared.agrees.double()
    values_NM = torch.stack([found[measure] for measure in MEASURES], dim=1)
    return at.rows.numpy(), values_NM.cpu().numpy()


def _table(
    subject: Subject,
    rebuilt: Rebuilt,
    sums: dict[str, Float64[np.ndarray, "labels measures"]],
    counts: dict[str, Int64[np.ndarray, " labels"]],
    documents: Int64[np.ndarray, " labels"],
) -> pl.DataFrame:
    names = subject.labels.names
    lines = []
    for model in sums:
        for label, which in [
            (ALL, list(range(len(names)))),
            *((n, [i]) for i, n in enumerate(names)),
        ]:
            rows = int(counts[model][which].sum())
            if not rows:
                continue
            means = (sums[model][which].sum(axis=0) / rows).tolist()
            measured = dict(zip(MEASURES, means, strict=True))
            lines.append(
                {
                    "model": model,
                    "label": label,
                    "documents": int(documents[which].sum()),
                    "rows": rows,
                    **{name: measured[name] for name in MEASURES[:4]},
                    "loss_recovered": _recovered(measured, "ce_zero"),
                    "loss_recovered_mean": _recovered(measured, "ce_mean"),
                    **{name: measured[name] for name in MEASURES[4:]},
                    "fve": rebuilt.fve(model, which),
                    "l0": rebuilt.l0(which),
                    "dead": rebuilt.dead(model, which),
                }
            )
    return pl.DataFrame(lines, infer_schema_length=None)


def _recovered(measured: dict[str, float], ablated: str) -> float | None:
    """Share of the loss that an ablation adds which the reconstruction does not add."""
    added = measured[ablated] - measured["ce_clean"]
    return (measured[ablated] - measured["ce_reconstruction"]) / added if added else None
