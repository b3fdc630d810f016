"""A crosscoder's forward pass in dense tensors, differentiable in inputs, weights and codes.

The core's own pass is sparse and gives inputs no gradient; users of the names fine-tune and take
gradients through a dictionary, at any cost in memory. Same codes and reconstructions to rounding.
O: writing hookpoints.
"""

from __future__ import annotations

import torch
from torch import Tensor

from train.dictionary.activation import BatchTopK, Gated, JumpReLU, TopK
from train.dictionary.codes import SparseCodes, take_columns
from train.dictionary.crosscoder import Activations, Crosscoder
from train.dictionary.preactivations import Preactivations
from train.dictionary.straight_through import jump_relu


def per_hookpoint(core: Crosscoder) -> bool:
    """Whether a feature may be on for some hookpoints only (code normalization decoupled)."""
    return core.normalization == "decoupled" and isinstance(core.activation, BatchTopK)


def encode(core: Crosscoder, activations: Activations, k: int | None = None) -> Tensor:
    """Codes (B, F) of raw activations; (B, O, F) where a feature may be on for some of O only.

    With `k` those of training (the k largest per row, or k * B of the batch); without, of
    inference. `activations` holds at least the reading hookpoints.
    """
    pre_BF = preactivations(core, activations)
    if isinstance(core.activation, JumpReLU):
        return jump_relu(pre_BF, core.threshold[None], core.activation.bandwidth)
    values_BF = pre_BF
    if isinstance(core.activation, Gated):
        values_BF = core.r_mag.exp() * (pre_BF - core.b_enc) + core.mag_bias
    picked = _selected(core, pre_BF.detach(), k)
    on_BF = _mask(picked, torch.ones_like(picked.pattern.flat, dtype=torch.bool))
    if picked.on_HN is None:
        return values_BF.relu() * on_BF
    on = [_mask(picked, picked.on_HN[n]) for n in core.outputs]
    return values_BF.relu()[:, None] * torch.stack(on, dim=1)


def preactivations(core: Crosscoder, activations: Activations) -> Tensor:
    """Pre-activations (B, F) of raw activations."""
    pre_BF = core.b_enc
    for n, x_BD in core.scaled_at(core.inputs, activations).items():
        if core.center and n in core.outputs:
            x_BD = x_BD - core.b_dec[str(n)]
        part_BV = x_BD @ core.W_enc[str(n)].T
        seen_V = core.visibility(n).features_V
        full_BF = part_BV.new_zeros(len(x_BD), core.partition.features)
        pre_BF = pre_BF + full_BF.index_add(1, seen_V, part_BV)
    return pre_BF


def decode(core: Crosscoder, codes: Tensor) -> Activations:
    """Reconstructions in raw units of codes (B, F) or (B, O, F)."""
    codes = codes.to(core.b_enc)
    raw = {}
    for place, n in enumerate(core.outputs):
        mine_BF = codes if codes.dim() == 2 else codes[:, place]
        mine_BV = take_columns(mine_BF, core.visibility(n).runs)
        x_hat_BD = mine_BV @ core.W_dec[str(n)] + core.b_dec[str(n)]
        x_hat_BD = x_hat_BD / core.scale[n]
        if core.means:
            x_hat_BD = x_hat_BD + core.get_buffer(f"mean_{n}")
        raw[core.hookpoints[n].name] = x_hat_BD
    return raw


@torch.no_grad()
def _selected(core: Crosscoder, pre_BF: Tensor, k: int | None) -> SparseCodes:
    if k is None or not isinstance(core.activation, BatchTopK | TopK):
        return core.activation.inference(core, pre_BF)
    codes = core.activation.training(core, Preactivations(pre_BF, core.b_enc, []), k).codes
    assert isinstance(codes, SparseCodes)
    return codes


def _mask(codes: SparseCodes, on_N: Tensor) -> Tensor:
    """(B, F), true at entries that are on."""
    pattern = codes.pattern
    full = torch.zeros(pattern.batch * pattern.features, dtype=torch.bool, device=on_N.device)
    full[pattern.flat] = on_N
    return full.view(pattern.batch, pattern.features)
