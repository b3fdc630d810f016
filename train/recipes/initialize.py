"""How a dictionary starts: scales, decoder directions, encoder transpose, biases and sizes.

Scale (arXiv 2602.11729): each model's median L2 norm becomes sqrt(mean width), so that no model
dominates the loss or the decoder norms. The decoder bias starts at the geometric median of the
first batch (BatchTopK family).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.errors import ConfigError, StoreError
from train.config import TrainConfig
from train.dictionary.codes import Codes, SparseCodes
from train.dictionary.crosscoder import Activations, Crosscoder
from train.dictionary.selection import batch_topk
from train.recipes.schedule import active_features
from train.source import RowSource

SMALLEST_NORM = 1e-12  # rows of zeros have a quantile of 5e-20, the edge of their histogram bin
SIZING_ROWS = 256
START_L0 = 2  # with 1, L0 falls to a fifth of its target before thresholds follow
WEISZFELD_STEPS = 100
WEISZFELD_TOLERANCE = 1e-6


def initialize_weights(dictionary: Crosscoder, config: TrainConfig) -> None:
    """Random directions of the configured decoder norm; by default the encoder is their transpose.

    same_init: the same directions at every hookpoint, where features of the same number are the
    same. Raises ConfigError if these differ in width.
    """
    generator = torch.Generator().manual_seed(config.seed)
    norm = config.decoder_init_norm
    assert norm is not None
    shapes = dictionary.hookpoints
    if config.same_init and len({shape.width for shape in shapes}) > 1:
        widths = ", ".join(f"{shape.name} {shape.width}" for shape in shapes)
        raise ConfigError(f"train.same_init: hookpoints differ in width ({widths}); turn it off")
    drawn: dict[str, Tensor] = {}

    def directions(number: int, part: str) -> Tensor:
        dtype = dictionary.b_enc.dtype
        if config.same_init:
            size = (dictionary.partition.features, shapes[number].width)
            if part not in drawn:
                drawn[part] = torch.randn(size, generator=generator, dtype=dtype)
            draw_VD = drawn[part][dictionary.visibility(number).features_V]
        else:
            size = (dictionary.visible_count(number), shapes[number].width)
            draw_VD = torch.randn(size, generator=generator, dtype=dtype)
        return norm * draw_VD / draw_VD.norm(dim=1, keepdim=True)

    with torch.no_grad():
        for number in range(len(shapes)):
            W_VD = directions(number, "encoder")
            if number in dictionary.inputs:
                dictionary.W_enc[str(number)].copy_(W_VD)
            if number in dictionary.outputs:
                independent = config.decoder_init == "independent" and number in dictionary.inputs
                W_dec_VD = directions(number, "decoder") if independent else W_VD
                dictionary.W_dec[str(number)].copy_(W_dec_VD)
        if dictionary.activation.kind == "jump_relu" and config.threshold_init is not None:
            dictionary.threshold.fill_(config.threshold_init)


def norm_aimed_at(dictionary: Crosscoder) -> float:
    """What the median norm of every hookpoint's rows becomes in scaled units."""
    widths = [hookpoint.width for hookpoint in dictionary.hookpoints]
    return float((sum(widths) / len(widths)) ** 0.5)


def initialize_scale(dictionary: Crosscoder, source: RowSource) -> None:
    """Sets every hookpoint's scale from the rows' statistics. Raises StoreError."""
    target = norm_aimed_at(dictionary)
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
    x = dictionary.scaled(first_batch)
    with torch.no_grad():
        for n in dictionary.outputs:
            dictionary.b_dec[str(n)].copy_(geometric_median(x[n]))


@torch.no_grad()
def initialize_sizes(dictionary: Crosscoder, first_batch: Activations, config: TrainConfig) -> None:
    """Sizes the encoder and thresholds from the first rows; to be called after scale and bias.

    Decoders of norm 1 leave the encoder's size open: it becomes such that reconstructions are as
    long as what they reconstruct, less the bias (arXiv 2406.04093, appendix A.1). Thresholds of a
    JumpReLU become such that START_L0 times target_l0 features a row are active: they move by no
    more than the learning rate a step, from almost nothing (arXiv 2407.14435) for very long.
    """
    jump = dictionary.activation.kind == "jump_relu"
    if not (jump or config.unit_norm_decoder):
        return
    x = [x_BD[:SIZING_ROWS] for x_BD in dictionary.scaled(first_batch)]
    pre = dictionary.preactivations(x)
    if jump:
        count = round(START_L0 * (config.target_l0 or config.k) * len(x[0]))
        ones_F = torch.ones_like(dictionary.b_enc)
        pattern, threshold = batch_topk(pre.dense_BF, ones_F, config.k, count)
        codes: Codes = SparseCodes(pattern, pre.at(pattern).relu())
    else:
        k = active_features(0, config)
        codes = dictionary.activation.training(dictionary, pre, k).codes
    size = _size(dictionary, x, codes) if config.unit_norm_decoder else 1.0
    for W_VD in dictionary.W_enc.values():
        W_VD *= size
    if jump and config.threshold_init is None:
        dictionary.threshold.fill_(size * threshold)


def _size(dictionary: Crosscoder, x: list[Tensor], codes: Codes) -> float:
    """Length of all that is reconstructed over that of its reconstruction; 1 where one is 0."""
    wanted, found = dictionary.written(x), dictionary.decode_scaled(codes, bias=False)
    biases = dictionary.b_dec.values()
    length = sum(float((w - b).square().sum()) for w, b in zip(wanted, biases, strict=True))
    reached = sum(float(f_BD.square().sum()) for f_BD in found)
    return (length / reached) ** 0.5 if length > 0 and reached > 0 else 1.0


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
