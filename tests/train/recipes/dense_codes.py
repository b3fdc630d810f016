"""Codes to test pieces with: the same values sparse and dense, and what to compare them to."""

import torch
from hypothesis import strategies as st
from torch import Tensor

from train.dictionary.codes import DenseCodes, Pattern, SparseCodes

FORMS = ["sparse", "dense"]


def random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def example() -> Tensor:
    """5 rows, 6 features, non-negative; row 2 and feature 3 are empty."""
    dense_BF = random(5, 6, seed=1).relu()
    dense_BF[2] = 0
    dense_BF[:, 3] = 0
    return dense_BF


def codes_of(form: str, dense_BF: Tensor, kept_BF: Tensor | None = None):
    """Codes of this matrix; sparse: at its positive places, or at those of `kept_BF`."""
    if form == "dense":
        return DenseCodes(dense_BF)
    kept_BF = dense_BF > 0 if kept_BF is None else kept_BF
    flat = kept_BF.reshape(-1).nonzero().squeeze(1)
    return SparseCodes(Pattern(flat, *dense_BF.shape), dense_BF.reshape(-1)[flat])


@st.composite
def matrices(draw: st.DrawFn) -> Tensor:
    """Codes of 1-5 rows and 1-6 features with zeros, tiny and large values."""
    batch, features = draw(st.integers(1, 5)), draw(st.integers(1, 6))
    values = st.one_of(st.just(0.0), st.floats(1e-9, 1e3))
    row = st.lists(values, min_size=features, max_size=features)
    rows = draw(st.lists(row, min_size=batch, max_size=batch))
    return torch.tensor(rows, dtype=torch.float64)


def gradient_of(function, x: Tensor) -> Tensor:
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(function(leaf), leaf)
    return gradient
