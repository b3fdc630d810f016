"""Products with sparse codes: what of a training step touches active entries alone.

A sparse matrix is given as CSR: entries of row r lie from starts[r] to starts[r + 1], `places` says
in which column, -1 for one that counts as zero. On CUDA by Triton kernels, elsewhere by what torch
has of its own; the tests compare both with dense products.
"""

from __future__ import annotations

import warnings
from functools import cache
from importlib.util import find_spec

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag

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
    if runs_kernels(dense):
        from train.dictionary import triton_kernels

        return triton_kernels.gather_sum(starts, places, values, dense)
    first, last = (int(starts[0]), int(starts[-1])) if len(starts) > 1 else (0, 0)
    places = places[first:last]
    values = values[first:last] * (places >= 0)
    # Bags of rows: the same sums in the same order as a CSR product's, without its preparations.
    return embedding_bag(
        places.clamp(min=0), dense, starts[:-1] - first, mode="sum", per_sample_weights=values
    )


def products_at(
    starts: Int[Tensor, " rows_plus_1"],
    places: Int[Tensor, " entries"],
    left: Float[Tensor, "rows width"],
    right: Float[Tensor, "places width"],
) -> Float[Tensor, " entries"]:
    """For every entry: its row of `left` times row `place` of `right`."""
    seen, places = places >= 0, places.clamp(min=0)
    shape = (len(left), len(right))
    if len(places) > shape[0] * shape[1]:  # sampled_addmm refuses more entries than places
        rows = torch.arange(shape[0], device=left.device).repeat_interleave(starts.diff())
        return (left @ right.T)[rows, places] * seen
    entries = _csr(starts, places, torch.zeros_like(places, dtype=right.dtype), shape)
    found = torch.sparse.sampled_addmm(entries, left.contiguous(), right.T, beta=0.0)
    return found.values() * seen


def decode_gradients(
    starts: Int[Tensor, " rows_plus_1"],
    rows: Int[Tensor, " entries"],
    order: Int[Tensor, " entries"],
    values: Float[Tensor, " entries"],
    grad: Float[Tensor, "batch width"],
    weights: Float[Tensor, "rows width"],
) -> tuple[Float[Tensor, " entries"], Float[Tensor, "rows width"]]:
    """Both gradients of a decoder in one pass over the rows of `grad`; by a Triton kernel only.

    Row f of `weights` is that of a feature whose entries lie, by feature, from starts[f] to
    starts[f + 1]: entry e is on row rows[e] of the batch, and in the order of rows it is order[e],
    where its value is and its gradient will be, grad[row] times weights[f]; entries of no such
    feature get 0. The gradient of weights[f] is the sum over entries of value * grad[row].
    """
    from train.dictionary import triton_kernels

    return triton_kernels.decode_gradients(starts, rows, order, values, grad, weights)


def runs_kernels(tensor: Tensor) -> bool:
    """Whether products with this tensor are done by the kernels."""
    return tensor.is_cuda and _has_triton()


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None


def _csr(starts: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    return torch.sparse_csr_tensor(starts, columns, values, shape, check_invariants=False)
