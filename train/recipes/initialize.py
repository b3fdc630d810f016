"""How a dictionary starts: scales, decoder directions, encoder transpose, decoder bias.

Scale (arXiv 2602.11729): each model's median L2 norm becomes sqrt(mean width), so that no model
dominates the loss or the decoder norms. The decoder bias starts at the geometric median of the
first batch (BatchTopK family).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.errors import StoreError
from train.dictionary.crosscoder import Activations, Crosscoder
from train.source import RowSource

SMALLEST_NORM = 1e-12  # rows of zeros have a quantile of 5e-20, the edge of their histogram bin
WEISZFELD_STEPS = 100
WEISZFELD_TOLERANCE = 1e-6


def initialize_weights(dictionary: Crosscoder, decoder_norm: float, seed: int) -> None:
    """Random decoder directions of the given norm; the encoder is their transpose."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for W_enc_VD, W_dec_VD in zip(dictionary.W_enc, dictionary.W_dec, strict=True):
            directions = torch.randn(W_dec_VD.shape, generator=generator, dtype=W_dec_VD.dtype)
            W_dec_VD.copy_(decoder_norm * directions / directions.norm(dim=1, keepdim=True))
            W_enc_VD.copy_(W_dec_VD)


def initialize_scale(dictionary: Crosscoder, source: RowSource) -> None:
    """Sets every hookpoint's scale from the rows' statistics. Raises StoreError."""
    widths = [hookpoint.width for hookpoint in dictionary.hookpoints]
    target = (sum(widths) / len(widths)) ** 0.5
    for number, hookpoint in enumerate(dictionary.hookpoints):
        median = source.statistics(hookpoint.name).norm_quantile(0.5)
        if not median > SMALLEST_NORM:
            raise StoreError(
                f"{source.name}: {hookpoint.name}: median norm {median}; "
                "rows are empty or zero; harvest again"
            )
        dictionary.scale[number] = target / median


def initialize_bias(dictionary: Crosscoder, first_batch: Activations) -> None:
    """Sets every decoder bias to the geometric median of the first batch."""
    with torch.no_grad():
        for x_BD, b_dec_D in zip(dictionary.scaled(first_batch), dictionary.b_dec, strict=True):
            b_dec_D.copy_(geometric_median(x_BD))


def geometric_median(points: Float[Tensor, "rows width"]) -> Float[Tensor, " width"]:
    """The point with the smallest sum of distances, by Weiszfeld's algorithm in float64.

    With the correction of Vardi and Zhang (PNAS 2000): the algorithm as such stands still on any
    of the points that it happens to meet.
    """
    x = points.to(torch.float64)
    guess = x.mean(dim=0)
    for _ in range(WEISZFELD_STEPS):
        distances = (x - guess).norm(dim=1)
        met = distances <= WEISZFELD_TOLERANCE * distances.median()
        weights = (1 / distances).masked_fill(met, 0)
        pull = (weights[:, None] * (x - guess)).sum(dim=0)
        step = (1 - met.sum() / pull.norm().clamp(min=1e-300)).clamp(min=0)
        better = guess + step * pull / weights.sum().clamp(min=1e-300)
        moved = (better - guess).norm()
        guess = better
        if moved <= WEISZFELD_TOLERANCE * guess.norm().clamp(min=1e-12):
            break
    return guess.to(points.dtype)
