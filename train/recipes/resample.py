"""Neuron resampling (Bricken et al. 2023): dead features start again from badly explained rows.

A dead feature gets the direction of a row that is drawn with a probability proportional to the
square of its loss. Per partition group, with the loss of the hookpoints that see the group: what
one model's exclusive features become does not depend on another model.
B batch rows, F features, V features visible to a hookpoint, R resampled features.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from train.dictionary.crosscoder import Crosscoder

ENCODER_SHARE = 0.2  # of the mean norm of alive encoder rows
SMALLEST_NORM = 1e-12


@torch.no_grad()
def resample(
    dictionary: Crosscoder,
    optimizer: torch.optim.Optimizer,
    dead_F: Bool[Tensor, " features"],
    x: list[Float[Tensor, "batch _width"]],
    residuals: list[Float[Tensor, "batch _width"]],
    seed: int,
    step: int,
) -> Bool[Tensor, " features"]:
    """Re-initialises dead features in place; returns which. Waits for the device.

    x: scaled inputs of all hookpoints; residuals: of the writing ones. Per hookpoint, with u the
    row's unit vector (less b_dec, where there is one): decoder row u times the mean norm of alive
    decoder rows (1 where they are kept at 1); encoder row u times 0.2 of the mean norm of alive
    encoder rows; all rows' mean where no feature is alive. b_enc, r_mag and mag_bias become 0, a
    JumpReLU threshold the alive ones' mean. Adam's moments of exactly these rows become 0.

    Rows are drawn without replacement, since two features of one direction would stay the same
    forever: if a group has more dead features than there are rows with a loss, the last of them
    wait for the next time. The draw depends on (seed, step) alone; several processes must pass the
    same rows, or share the outcome.
    """
    chosen_F = torch.zeros_like(dead_F)
    norms = _alive_norms(dictionary, dead_F)
    for number, group in enumerate(dictionary.partition.groups):
        here = dictionary.partition.slices[group.name]
        seen_by = [n for n, h in enumerate(dictionary.hookpoints) if h.model in group.models]
        features_R = dead_F[here].nonzero().squeeze(1) + here.start
        rows_R = _draw(_losses(dictionary, residuals, seen_by), len(features_R), seed, step, number)
        features_R = features_R[: len(rows_R)]
        chosen_F[features_R] = True
        for n in seen_by:
            _redirect(dictionary, optimizer, n, features_R, x[n][rows_R.to(x[n].device)], norms)
    _reset_feature_parameters(dictionary, optimizer, dead_F, chosen_F)
    return chosen_F


def reset_moments(
    optimizer: torch.optim.Optimizer, parameter: Tensor, rows: Tensor | slice
) -> None:
    """Zeroes what the optimizer remembers of these rows of a parameter; its step count stays."""
    for value in optimizer.state.get(parameter, {}).values():
        if isinstance(value, Tensor) and value.shape == parameter.shape:
            value[rows] = 0


def _losses(dictionary: Crosscoder, residuals: list[Tensor], seen_by: list[int]) -> Tensor:
    """Squared error of every row over the writing hookpoints among `seen_by`, on the CPU (B,)."""
    losses_B = torch.zeros(len(residuals[0]), dtype=torch.float64)
    for n, e_BD in zip(dictionary.outputs, residuals, strict=True):
        if n in seen_by:
            losses_B += e_BD.square().sum(dim=1).cpu()
    return losses_B


def _draw(losses_B: Tensor, wanted: int, seed: int, step: int, group: int) -> Tensor:
    """Up to `wanted` different rows, with probabilities proportional to squared losses."""
    weights_B = (losses_B / losses_B.max().clamp(min=SMALLEST_NORM)).square()
    count = min(wanted, int((weights_B > 0).sum()))
    if count == 0:
        return torch.empty(0, dtype=torch.int64)
    (state,) = np.random.SeedSequence([seed, step, group]).generate_state(1, np.uint64)
    generator = torch.Generator().manual_seed(int(state))
    return torch.multinomial(weights_B, count, replacement=False, generator=generator)


def _alive_norms(dictionary: Crosscoder, dead_F: Tensor) -> dict[str, dict[str, Tensor]]:
    """Mean row norm of alive features: by side ("encoder", "decoder"), then hookpoint."""
    found: dict[str, dict[str, Tensor]] = {}
    for side, weights in (("encoder", dictionary.W_enc), ("decoder", dictionary.W_dec)):
        found[side] = {}
        for key, W_VD in weights.items():
            alive_V = ~dead_F[dictionary.visibility(int(key)).features_V]
            norms_V = W_VD.norm(dim=1)
            found[side][key] = norms_V[alive_V].mean() if alive_V.any() else norms_V.mean()
    return found


def _redirect(
    dictionary: Crosscoder,
    optimizer: torch.optim.Optimizer,
    n: int,
    features_R: Tensor,
    x_RD: Tensor,
    norms: dict[str, dict[str, Tensor]],
) -> None:
    """Points the features' rows at hookpoint `n` to these inputs."""
    key = str(n)
    rows_R = dictionary.visibility(n).local_F[features_R]
    if key in dictionary.b_dec:
        x_RD = x_RD - dictionary.b_dec[key]
    unit_RD = x_RD / x_RD.norm(dim=1, keepdim=True).clamp(min=SMALLEST_NORM)
    if key in dictionary.W_enc:
        dictionary.W_enc[key][rows_R] = ENCODER_SHARE * norms["encoder"][key] * unit_RD
        reset_moments(optimizer, dictionary.W_enc[key], rows_R)
    if key in dictionary.W_dec:
        dictionary.W_dec[key][rows_R] = norms["decoder"][key] * unit_RD
        reset_moments(optimizer, dictionary.W_dec[key], rows_R)


def _reset_feature_parameters(
    dictionary: Crosscoder, optimizer: torch.optim.Optimizer, dead_F: Tensor, chosen_F: Tensor
) -> None:
    for name, parameter in dictionary.named_parameters(recurse=False):
        if name != "threshold":
            parameter[chosen_F] = 0
        elif not dead_F.all():
            parameter[chosen_F] = parameter[~dead_F].mean()
        reset_moments(optimizer, parameter, chosen_F)
