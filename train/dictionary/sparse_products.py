"""Products with sparse codes: what of a training step touches active entries alone.

A sparse matrix is given as CSR: entries of row r lie from starts[r] to starts[r + 1], `places` says
in which column, -1 for one that counts as zero. On CUDA by Triton kernels, elsewhere by torch's own
sparse products; the tests compare both with dense ones.
"""

from __future__ import annotations

import warnings
from functools import cache
from importlib.util import find_spec

import torch
from jaxtyping import Float, Int
from torch import Tensor

with warnings.catch_warnings():  # torch announces once per process that CSR tensors are in beta
    warnings.simplefilter("ignore")
    torch.sparse_csr_tensor(
        torch.tensor([0, 1]), torch.tensor([0]), torch.ones(1), (1, 1), check_invariants=False
    )


def gather_sum(
    starts: Int[Tensor, " rows_plus_1"],
    places: Int[Tensor, " entries"],
    values: Float[Tensor, " entries"],
    dense: Float[Tensor, "places width"],
) -> Float[Tensor, "rows width"]:
    """Per row the sum over its entries of value * dense[place].

    `starts` may be a part of a longer one: entries outside of it are not looked at.
    """
    if dense.is_cuda and _has_triton():
        from train.dictionary import triton_kernels

        return triton_kernels.gather_sum(starts, places, values, dense)
    first, last = (int(starts[0]), int(starts[-1])) if len(starts) > 1 else (0, 0)
    places = places[first:last]
    values = values[first:last] * (places >= 0)
    shape = (len(starts) - 1, len(dense))
    matrix = _csr(starts - first, places.clamp(min=0), values, shape)
    # In place: the operator @ would fill and copy a result of its own first.
    return dense.new_empty(shape[0], dense.shape[1]).addmm_(matrix, dense, beta=0)


def products_at(
    starts: Int[Tensor, " rows_plus_1"],
    places: Int[Tensor, " entries"],
    left: Float[Tensor, "rows width"],
    right: Float[Tensor, "places width"],
) -> Float[Tensor, " entries"]:
    """For every entry: its row of `left` times row `place` of `right`."""
    if left.is_cuda and _has_triton():
        from train.dictionary import triton_kernels

        return triton_kernels.products_at(starts, places, left, right)
    seen, places = places >= 0, places.clamp(min=0)
    shape = (len(left), len(right))
    if len(places) > shape[0] * shape[1]:  # sampled_addmm refuses more entries than places
        rows = torch.arange(shape[0], device=left.device).repeat_interleave(starts.diff())
        return (left @ right.T)[rows, places] * seen
    entries = _csr(starts, places, torch.zeros_like(places, dtype=right.dtype), shape)
    found = torch.sparse.sampled_addmm(entries, left.contiguous(), right.T, beta=0.0)
    return found.values() * seen


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None


def _csr(starts: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    return torch.sparse_csr_tensor(starts, columns, values, shape, check_invariants=False)
