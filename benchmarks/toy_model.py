"""A ground truth for model diffing: two toy models that are sparse sums of known concepts.

The toy model of arXiv 2602.11729 (see benchmarks/toy.py for what is measured on it). Each of C
concepts is a direction in A, in B or in both. At A it is a random unit vector c; at B it is M c,
with one random matrix M (no offset), all of B rescaled so that the median norm of the concepts is
that of A's. Concepts that only B has are unit vectors of their own, mapped by the same M; which
concepts are exclusive is drawn uniformly from all, so they spread over the ranks of frequency.

Concept i fires with probability sigmoid(base_i + loadings_i . z), z a standard normal vector per
row: concepts with like loadings fire together. base_i falls by `decay` log(1 + i), so rates fall
about as (1 + i)^-decay; they are calibrated to `active` concepts per row on average. A row is the
sum of its active concepts, each times a scale from U(0, 1], plus noise per coordinate.

Sampling costs a random number and a sigmoid per row and concept (about 30 s per million rows of
2,048 concepts on one core); building costs nothing. Everything follows from the seeds.
B rows, C concepts, D width of a model, N active (row, concept) pairs, R rank of the correlation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

MODELS = ("a", "b")
SHARED = "shared"
BLOCK_ROWS = 4096


@dataclass(frozen=True)
class ToySpec:
    """What a toy model is made from.

    exclusive: share of the concepts that only A has, and that only B has; active: mean concepts
    per row; decay: exponent with which rates fall by rank; rank and spread: of the correlated part
    of the logits, spread being its standard deviation; noise: standard deviation per coordinate.
    """

    concepts: int = 2048
    widths: tuple[int, int] = (256, 256)
    exclusive: float = 0.025
    active: float = 5.0
    decay: float = 1.0
    rank: int = 8
    spread: float = 1.0
    noise: float = 0.01
    seed: int = 0


@dataclass(frozen=True)
class ToyRows:
    """Rows of both models, and what is in them.

    x_BD: model -> float32 (B, D); rows_N, concepts_N: the active pairs, int64, ordered by row;
    scales_N: how strongly, float32 in (0, 1].
    """

    x_BD: dict[str, Tensor]
    rows_N: Tensor
    concepts_N: Tensor
    scales_N: Tensor

    def dense(self, concepts: int) -> Tensor:
        """Scales as a matrix (B, C), zero where a concept does not fire."""
        dense_BC = torch.zeros(len(self.x_BD[MODELS[0]]), concepts)
        dense_BC[self.rows_N, self.concepts_N] = self.scales_N
        return dense_BC


@dataclass(frozen=True)
class ToyModel:
    """The two models. float32 tensors; directions are zero at a model that lacks the concept.

    concepts_A (C, d_A), concepts_B (C, d_B); owner (C,): "a", "b" or "shared"; base_C and
    loadings_CR: of the firing logits.
    """

    spec: ToySpec
    concepts_A: Tensor
    concepts_B: Tensor
    owner: np.ndarray
    base_C: Tensor
    loadings_CR: Tensor

    def concepts(self, model: str) -> Tensor:
        """Directions of all concepts at "a" or "b" (C, D)."""
        return {"a": self.concepts_A, "b": self.concepts_B}[model]

    @property
    def rates(self) -> np.ndarray:
        """Probability that each concept fires in a row (C,), float64."""
        return firing_rates(self.base_C.double().numpy(), self.spec.spread)

    def sample(self, rows: int, seed: int) -> ToyRows:
        """`rows` rows, the same ones for the same (rows, seed)."""
        blocks = list(self.blocks(rows, seed))
        sizes = [len(block.x_BD[MODELS[0]]) for block in blocks]
        firsts = np.cumsum([0, *sizes])[:-1].tolist()
        return ToyRows(
            {m: torch.cat([block.x_BD[m] for block in blocks]) for m in MODELS},
            torch.cat([b.rows_N + first for b, first in zip(blocks, firsts, strict=True)]),
            torch.cat([block.concepts_N for block in blocks]),
            torch.cat([block.scales_N for block in blocks]),
        )

    def blocks(self, rows: int, seed: int) -> Iterator[ToyRows]:
        """The same rows, BLOCK_ROWS at a time; rows_N counts within a block."""
        for number, start in enumerate(range(0, rows, BLOCK_ROWS)):
            generator = _generator(self.spec.seed, seed, number)
            yield self._block(min(BLOCK_ROWS, rows - start), generator)

    def _block(self, rows: int, generator: torch.Generator) -> ToyRows:
        z_BR = torch.randn(rows, self.spec.rank, generator=generator)
        p_BC = torch.addmm(self.base_C, z_BR, self.loadings_CR.T).sigmoid_()
        u_BC = torch.rand(p_BC.shape, generator=generator)
        fires = (u_BC < p_BC).flatten().nonzero()[:, 0]
        # Where u < p, u / p is uniform and independent of that: it serves as the scale.
        scales_N = 1 - u_BC.flatten()[fires] / p_BC.flatten()[fires]
        rows_N, concepts_N = fires // len(self.base_C), fires % len(self.base_C)
        starts_B = torch.searchsorted(rows_N, torch.arange(rows))
        x_BD = {}
        for model in MODELS:
            sums_BD = embedding_bag(
                concepts_N, self.concepts(model), starts_B, mode="sum", per_sample_weights=scales_N
            )
            noise_BD = torch.randn(sums_BD.shape, generator=generator)
            x_BD[model] = sums_BD.add_(noise_BD, alpha=self.spec.noise)
        return ToyRows(x_BD, rows_N, concepts_N, scales_N)


def build_toy(spec: ToySpec) -> ToyModel:
    """The toy model of a specification: a pure function of it."""
    assert 0 < spec.active < spec.concepts
    assert 0 <= spec.exclusive < 0.5
    generator = _generator(spec.seed)
    d_A, d_B = spec.widths
    own_CD = torch.randn(spec.concepts, d_A, generator=generator, dtype=torch.float64)
    own_CD /= own_CD.norm(dim=1, keepdim=True)
    M = torch.randn(d_B, d_A, generator=generator, dtype=torch.float64)
    mapped_CD = own_CD @ M.T
    mapped_CD /= mapped_CD.norm(dim=1).median()
    loadings_CR = torch.randn(spec.concepts, spec.rank, generator=generator, dtype=torch.float64)
    loadings_CR *= spec.spread / loadings_CR.norm(dim=1, keepdim=True)
    order = torch.randperm(spec.concepts, generator=generator).numpy()
    owner = _owners(order, round(spec.exclusive * spec.concepts))
    return ToyModel(
        spec,
        (own_CD * torch.from_numpy(owner != "b")[:, None]).float(),
        (mapped_CD * torch.from_numpy(owner != "a")[:, None]).float(),
        owner,
        torch.from_numpy(_calibrated(spec)).float(),
        loadings_CR.float(),
    )


def firing_rates(base_C: np.ndarray, spread: float) -> np.ndarray:
    """E sigmoid(base + spread g), g standard normal, by Gauss-Hermite quadrature (C,)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(48)
    logits = base_C[:, None] + spread * nodes
    return (1 / (1 + np.exp(-logits))) @ (weights / weights.sum())


def _calibrated(spec: ToySpec) -> np.ndarray:
    """Base logits (C,) at which `active` concepts fire per row on average, by bisection."""
    fall_C = -spec.decay * np.log1p(np.arange(spec.concepts))
    low, high = -60.0, 60.0 + spec.decay * np.log1p(spec.concepts)
    for _ in range(80):
        middle = (low + high) / 2
        if firing_rates(middle + fall_C, spec.spread).sum() < spec.active:
            low = middle
        else:
            high = middle
    return middle + fall_C


def _owners(order: np.ndarray, each: int) -> np.ndarray:
    owner = np.full(len(order), SHARED)
    owner[order[:each]], owner[order[each : 2 * each]] = MODELS
    return owner


def _generator(*numbers: int) -> torch.Generator:
    state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))
