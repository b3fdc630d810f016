"""Runs one model over its share of a block and keeps the aligned positions, in document order.

Rows are gathered and rounded to bfloat16, the store's dtype, on the model's device; they cross to
the CPU once per block, into pinned memory, and nobody waits for that before they are used. Costs
the forward passes plus 2 bytes x rows x width on the device for every hookpoint.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from harvest.batches import pack
from harvest.models.hooked import HookedModel
from harvest.plan import ModelPlan
from pipeline.errors import ModelError
from pipeline.memory import out_of_memory

Pair = Literal["last", "mean"]


@dataclass(frozen=True)
class Batch:
    """One forward pass: tokens and mask (batch, seq), the rows that it gives, and where.

    row_tokens: places in the flattened (batch x seq), `row_sizes` of them for each row; for `last`
    one each.
    """

    input_ids: Int64[Tensor, "batch seq"]
    attention_mask: Int64[Tensor, "batch seq"]
    rows: Int64[Tensor, " rows"]
    row_tokens: Int64[Tensor, " places"]
    row_sizes: Int64[Tensor, " rows"]


@dataclass(frozen=True)
class RowsOnTheWay:
    """Rows by hookpoint (rows, width) bfloat16, still being copied to the CPU until `arrived`."""

    activations: dict[str, Tensor]
    copied: tuple[torch.cuda.Event, ...]

    def arrived(self) -> dict[str, Tensor]:
        """The rows, once they are there."""
        for event in self.copied:
            event.synchronize()
        return self.activations


def row_activations(
    model: HookedModel,
    plan: ModelPlan,
    batch_tokens: int,
    pair: Pair = "last",
    before_pass: Callable[[], None] = lambda: None,
) -> RowsOnTheWay:
    """Every hookpoint's activation at every row. May hold non-finite values.

    `before_pass` is called ahead of every forward pass; what it raises ends the work.
    """
    _refuse_foreign_tokens(model, plan)
    rows: dict[str, Tensor] = {}
    remedy = (
        f"lower harvest.batch_tokens (now {batch_tokens}); if that does not help, "
        "harvest.block_characters; a store begun with other values cannot be gone on with: "
        "--fresh or, where several tasks write it, delete it"
    )
    for batch in batches(plan, batch_tokens, pair):
        before_pass()
        what = f"models.{model.name}, a pass of {batch.input_ids.numel()} tokens on {model.device}"
        with out_of_memory(ModelError, what, remedy):
            found = model.activations(batch.input_ids, batch.attention_mask)
            for name, values in found.items():
                if name not in rows:
                    rows[name] = _empty(len(plan.row_token), values)
                index = _sent(batch.rows, values.device)
                rows[name].index_copy_(0, index, _reduced(values, batch, pair))
    for hookpoint in model.hookpoints:
        rows.setdefault(hookpoint.name, torch.empty((0, hookpoint.width), dtype=torch.bfloat16))
    return _to_cpu(rows)


def batches(plan: ModelPlan, batch_tokens: int, pair: Pair = "last") -> list[Batch]:
    """The forward passes of a block, each of at most `batch_tokens`, padding included."""
    lengths = plan.lengths
    return [_batch(plan, windows, lengths, pair) for windows in pack(lengths, batch_tokens)]


def _batch(plan: ModelPlan, windows: np.ndarray, lengths: np.ndarray, pair: Pair) -> Batch:
    """Windows padded on the right: behind a causal mask nothing that follows a token counts."""
    shape = (len(windows), int(lengths[windows[0]]))
    input_ids = np.zeros(shape, np.int64)
    before = len(plan.prefix)
    input_ids[:, :before] = plan.prefix
    for line, window in enumerate(windows):
        ids = plan.ids[plan.window_start[window] : plan.window_stop[window]]
        input_ids[line, before : before + len(ids)] = ids
        input_ids[line, before + len(ids) : lengths[window]] = plan.suffix
    mask = np.arange(shape[1]) < lengths[windows, None]
    rows = _ranges(plan.window_row[windows], plan.window_row[windows + 1])
    counts = np.diff(plan.window_row)[windows]
    shift = np.repeat(np.arange(len(windows)) * shape[1] + before, counts)
    shift -= np.repeat(plan.window_start[windows], counts)
    last = plan.row_token[rows] + shift
    first = plan.row_first[rows] + shift if pair == "mean" else last
    tensors = (input_ids, mask.astype(np.int64), rows, _ranges(first, last + 1), last + 1 - first)
    return Batch(*map(torch.from_numpy, tensors))


def _ranges(start: np.ndarray, stop: np.ndarray) -> Int64[np.ndarray, " values"]:
    """Every start[i], ..., stop[i] - 1, one range behind the other."""
    sizes = stop - start
    before = np.cumsum(sizes) - sizes
    return np.arange(sizes.sum()) + np.repeat(start - before, sizes)


def _reduced(values: Float[Tensor, "batch seq width"], batch: Batch, pair: Pair) -> Tensor:
    """The rows of a pass (rows, width): one position each, or the mean over each one's stretch."""
    found = values.flatten(0, 1).index_select(0, _sent(batch.row_tokens, values.device))
    if pair == "mean":
        sizes = _sent(batch.row_sizes, values.device)
        found = torch.segment_reduce(found.float(), "mean", lengths=sizes)
    return found.to(torch.bfloat16)


def _empty(rows: int, like: Tensor) -> Tensor:
    return torch.empty((rows, like.shape[-1]), dtype=torch.bfloat16, device=like.device)


def _sent(values: Tensor, device: torch.device) -> Tensor:
    """On the device, without waiting for what it does at the moment."""
    if device.type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


def _to_cpu(rows: dict[str, Tensor]) -> RowsOnTheWay:
    arriving = {}
    events = []
    for name, values in rows.items():
        if values.device.type != "cuda":
            arriving[name] = values.cpu()
            continue
        arriving[name] = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        with torch.cuda.device(values.device):
            arriving[name].copy_(values, non_blocking=True)
            events.append(torch.cuda.Event())
            events[-1].record()
    return RowsOnTheWay(arriving, tuple(events))


def _refuse_foreign_tokens(model: HookedModel, plan: ModelPlan) -> None:
    if len(plan.ids) and int(plan.ids.max()) >= model.vocabulary:
        raise ModelError(
            f"models.{model.name}: its tokenizer gives token {int(plan.ids.max())}, but the model "
            f"embeds only {model.vocabulary}; tokenizer and weights do not belong together"
        )
