"""Dictionaries with random weights in float64, so that nothing holds by symmetry."""

import torch
from torch import Tensor

from train.dictionary.activation import Activation, BatchTopK, Gated, JumpReLU, ReLU, TopK
from train.dictionary.crosscoder import Crosscoder, HookpointShape
from train.dictionary.partition import FeatureGroup, Partition

FEATURES, ROWS = 24, 9
ONE = [("x", "m", 5, True, True)]
TWO = [("a0", "a", 5, True, True), ("b0", "b", 7, True, True)]
EQUAL = [("a0", "a", 6, True, True), ("b0", "b", 6, True, True)]
TRANSCODER = [("in", "m", 5, True, False), ("out", "m", 7, False, True)]
SHARED = {("a", "b"): 24}
DFC = {("a",): 6, ("a", "b"): 14, ("b",): 4}
MINE = {("m",): 24}

# id -> (hookpoints, groups, activation, normalization, center, means[, residual])
CASES: dict[str, tuple] = {
    "relu": (ONE, MINE, ReLU(), "none", True, False),
    "gated": (ONE, MINE, Gated(), "none", True, False),
    "gated with means": (ONE, MINE, Gated(), "none", False, True),
    "jump_relu": (ONE, MINE, JumpReLU(), "none", False, False),
    "topk": (ONE, MINE, TopK(4), "sae", True, True),
    "batch_topk": (ONE, MINE, BatchTopK(), "crosscoder", True, False),
    "transcoder": (TRANSCODER, MINE, BatchTopK(), "crosscoder", False, True),
    "centered transcoder": (TRANSCODER, MINE, ReLU(), "none", True, True),
    "crosscoder": (TWO, SHARED, ReLU(), "crosscoder", False, True),
    "equal widths": (EQUAL, SHARED, BatchTopK(), "mixed", False, False),
    "decoupled": (TWO, DFC, BatchTopK(), "decoupled", False, True),
    "dfc": (TWO, DFC, BatchTopK(), "per_model", True, True),
    "jump_relu dfc": (TWO, DFC, JumpReLU(), "crosscoder", False, True),
    "gated dfc": (TWO, DFC, Gated(), "crosscoder", False, True),
    "residual dfc": (TWO, DFC, BatchTopK(), "crosscoder", False, False, True),
    "centered residuals": (EQUAL, SHARED, ReLU(), "crosscoder", True, False, True),
}


def make(case: str, dtype: torch.dtype = torch.float64, seed: int = 0) -> Crosscoder:
    hookpoints, groups, activation, normalization, center, means, *residual = CASES[case]
    core = build(hookpoints, groups, activation, normalization, center, means, dtype, *residual)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in core.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(0.5 * noise)
        for name, buffer in core.named_buffers():
            if name.startswith(("mean_", "prediction.")):
                buffer.copy_(torch.randn(buffer.shape, generator=generator, dtype=torch.float64))
        core.scale.copy_(torch.linspace(0.6, 1.7, len(hookpoints)) ** 2)
        if hasattr(core, "threshold"):
            core.threshold.fill_(0.4)
    return core


def build(
    hookpoints: list[tuple],
    groups: dict[tuple, int],
    activation: Activation,
    normalization: str,
    center: bool,
    means: bool,
    dtype: torch.dtype,
    residual: bool = False,
) -> Crosscoder:
    partition = Partition(tuple(FeatureGroup("+".join(m), m, n) for m, n in groups.items()))
    return Crosscoder(
        tuple(HookpointShape(*shape) for shape in hookpoints),
        partition,
        normalization,
        dtype,
        activation=activation,
        center=center,
        means=means,
        residual=residual,
    )


def rows_of(core: Crosscoder, seed: int = 1, dtype: torch.dtype = torch.float64) -> dict:
    """Raw activations of every hookpoint, those that are only written too."""
    generator = torch.Generator().manual_seed(seed)
    return {
        shape.name: torch.randn(ROWS, shape.width, generator=generator, dtype=torch.float64).to(
            dtype
        )
        for shape in core.hookpoints
    }


def close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)
