"""Runs one model over its share of a block and keeps the aligned positions, in document order.

Rows are gathered and rounded to bfloat16, the store's dtype, on the model's device; they cross
to the CPU once per block. Costs the forward passes plus 2 bytes x rows x width on the device.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import BFloat16
from torch import Tensor

from harvest.batches import pack
from harvest.models import HookedModel
from harvest.plan import ModelPlan
from pipeline.errors import ModelError


def row_activations(
    model: HookedModel, plan: ModelPlan, batch_tokens: int
) -> BFloat16[Tensor, "rows width"]:
    """The hookpoint's activation at every row, on the CPU. May hold non-finite values."""
    if len(plan.ids) and int(plan.ids.max()) >= model.vocabulary:
        raise ModelError(
            f"models.{model.name}: its tokenizer gives token {int(plan.ids.max())}, but the model "
            f"embeds only {model.vocabulary}; tokenizer and weights do not belong together"
        )
    rows = torch.empty(
        (len(plan.row_token), model.width), dtype=torch.bfloat16, device=model.device
    )
    lengths = plan.window_stop - plan.window_start + len(plan.prefix)
    for batch in pack(lengths, batch_tokens):
        input_ids, attention_mask = _padded(plan, batch, int(lengths[batch[0]]))
        row, place = _gather_index(plan, batch, input_ids.shape[1])
        try:
            found = model.activations(input_ids, attention_mask).flatten(0, 1)
        except torch.OutOfMemoryError:
            raise ModelError(
                f"models.{model.name}: out of memory in a pass of {input_ids.numel()} tokens on "
                f"{model.device}; lower harvest.batch_tokens (now {batch_tokens}); a store "
                "begun with another value cannot be continued: delete it"
            ) from None
        rows[row.to(model.device)] = found[place.to(model.device)].to(torch.bfloat16)
    return _to_cpu(rows)


def _padded(plan: ModelPlan, batch: np.ndarray, longest: int) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask (batch, longest) of some windows, padded on the right.

    Behind a causal mask nothing that follows a token can change its activation.
    """
    input_ids = np.zeros((len(batch), longest), np.int64)
    attention_mask = np.zeros((len(batch), longest), np.int64)
    before = len(plan.prefix)
    for line, window in enumerate(batch):
        ids = plan.ids[plan.window_start[window] : plan.window_stop[window]]
        input_ids[line, :before] = plan.prefix
        input_ids[line, before : before + len(ids)] = ids
        attention_mask[line, : before + len(ids)] = 1
    return torch.from_numpy(input_ids), torch.from_numpy(attention_mask)


def _gather_index(plan: ModelPlan, batch: np.ndarray, longest: int) -> tuple[Tensor, Tensor]:
    """Rows that the windows of a batch give, and their places in the flattened (batch, longest)."""
    rows, places = [], []
    for line, window in enumerate(batch):
        row = np.arange(plan.window_row[window], plan.window_row[window + 1])
        inside = plan.row_token[row] - plan.window_start[window]
        rows.append(row)
        places.append(line * longest + len(plan.prefix) + inside)
    return torch.from_numpy(np.concatenate(rows)), torch.from_numpy(np.concatenate(places))


def _to_cpu(rows: Tensor) -> Tensor:
    if rows.device.type != "cuda":
        return rows.cpu()
    pinned = torch.empty(rows.shape, dtype=rows.dtype, pin_memory=True)
    pinned.copy_(rows)
    return pinned
