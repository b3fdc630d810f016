"""Passages of one model as padded forward passes, and rows as places in them.

Longest first, padded on the right: behind a causal mask nothing that follows a token counts. Rows
are numbered over all readings, one reading's behind the other's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from analyze.causal.passages import Reading
from harvest.models.hooked import HookedModel
from harvest.models.intervene import Edit


@dataclass(frozen=True)
class Batch:
    """One forward pass: tokens and mask, and the rows that are in it.

    readings: numbers of its texts; places: where each row is in the flattened (batch x seq).
    """

    readings: Int64[Tensor, " batch"]
    input_ids: Int64[Tensor, "batch seq"]
    attention_mask: Int64[Tensor, "batch seq"]
    rows: Int64[Tensor, " rows"]
    places: Int64[Tensor, " rows"]


def padded_batches(readings: Sequence[Reading], batch_tokens: int) -> list[Batch]:
    """Every reading in a pass of at most `batch_tokens`, padding included, or alone if longer."""
    lengths = np.array([len(reading.ids) for reading in readings], np.int64)
    counts = np.array([len(reading.positions) for reading in readings], np.int64)
    first_row = np.cumsum(counts) - counts
    order = np.argsort(-lengths, kind="stable")
    batches, start = [], 0
    while start < len(order):
        size = max(1, batch_tokens // max(1, int(lengths[order[start]])))
        batches.append(_batch(readings, order[start : start + size], lengths, first_row))
        start += size
    return batches


def _batch(
    readings: Sequence[Reading], numbers: np.ndarray, lengths: np.ndarray, first_row: np.ndarray
) -> Batch:
    seq = int(lengths[numbers[0]])
    input_ids = np.zeros((len(numbers), seq), np.int64)
    rows, places = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for line, number in enumerate(numbers):
        reading = readings[number]
        input_ids[line, : len(reading.ids)] = reading.ids
        rows.append(first_row[number] + np.arange(len(reading.positions)))
        places.append(line * seq + reading.positions)
    mask = (np.arange(seq) < lengths[numbers, None]).astype(np.int64)
    arrays = (numbers, input_ids, mask, np.concatenate(rows), np.concatenate(places))
    return Batch(*map(torch.from_numpy, arrays))


def read_rows(
    model: HookedModel, batches: Sequence[Batch], rows: int
) -> dict[str, Float[Tensor, "rows _"]]:
    """Activations of every row at each of the model's hookpoints, on its devices, in its dtype."""
    found: dict[str, Tensor] = {}
    for batch in batches:
        for name, values in model.activations(batch.input_ids, batch.attention_mask).items():
            here = values.flatten(0, 1)[batch.places.to(values.device)]
            if name not in found:
                found[name] = here.new_zeros(rows, values.shape[-1])
            found[name][batch.rows.to(values.device)] = here
    return found


def put_rows(batch: Batch, values: Float[Tensor, "rows width"]) -> Edit:
    """The edit that puts `values`, one per row of the batch in its order, at the rows' places.

    Every other position keeps what it has. values: of batch.rows, or one line for all of them.
    """

    def edit(activations: Tensor) -> Tensor:
        flat = activations.flatten(0, 1).clone()
        new = values.to(device=flat.device, dtype=flat.dtype)
        places = batch.places.to(flat.device)
        return flat.index_copy_(0, places, new.expand(len(places), -1)).view_as(activations)

    return edit
