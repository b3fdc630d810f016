"""The null pair: one model beside a rotated copy of itself, and nothing that only one of them has.

The other model's hookpoint gets, in place of its own rows, (x + e) Q: x the base model's rows, Q a
random matrix with orthonormal rows from the base's width to the other's, and e noise. Every feature
of one is a linear direction of the other. Two real models, though, do not share what they share to
the last digit; so e is Gaussian with the covariance of what the best linear map from the other
model fails to predict of x. That counts what truly is the base's own as noise, too, so the copy is
worse than it should be and, with one hookpoint per model, the null is on the safe side; of several
hookpoints each has noise of its own, which a readout from all of them averages out. Without noise
it is an exact copy: the model against itself.

D_b width of the base's hookpoint, D_o of the other's, B rows.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from analyze.norms import model_pair
from analyze.pairing import HookpointPair, hookpoint_pairs
from pipeline.errors import ConfigError
from store.loader import Batch
from train.dictionary.crosscoder import Activations, Crosscoder


@dataclass(frozen=True)
class Copy:
    """How one hookpoint of the other model is made from one of the base.

    rotation: orthonormal rows; noise_root: a square root of the noise's covariance in the base's
    raw units, None for no noise.
    """

    base: str
    other: str
    rotation: Float[Tensor, "base other"]
    noise_root: Float[Tensor, "base base"] | None

    def of(self, x_BD: Float[Tensor, "batch base"], rows: np.ndarray) -> Tensor:
        """The copy of these rows of the base, (batch, other) in float32; the same for them again.

        The noise is drawn for the batch by the numbers of its first and last row.
        """
        x_BD = x_BD.float()
        if self.noise_root is not None:
            seed = hash((int(rows[0]), int(rows[-1]), len(rows))) & (2**63 - 1)
            generator = torch.Generator().manual_seed(seed)
            draw_BD = torch.randn(x_BD.shape, generator=generator).to(x_BD.device)
            x_BD = x_BD + draw_BD @ self.noise_root.to(x_BD.device)
        return x_BD @ self.rotation.to(x_BD.device)


@dataclass(frozen=True)
class NullPair:
    """The copies of all hookpoints of a model: the base; `seed`: of the rotations."""

    model: str
    seed: int
    copies: tuple[Copy, ...]

    @property
    def name(self) -> str:
        """Names it by its content."""
        total = hashlib.sha256()
        for copy in self.copies:
            for part in (copy.rotation, copy.noise_root):
                if part is not None:
                    total.update(part.numpy().tobytes())
        return f"{self.model} beside its rotated copy {self.seed} ({total.hexdigest()[:16]})"

    def view(self, batch: Batch) -> Activations:
        """A batch of the real pair's raw rows as one of the null pair's."""
        seen = dict(batch.activations)
        for copy in self.copies:
            seen[copy.other] = copy.of(seen[copy.base], batch.rows)
        return seen


def base_model(dictionary: Crosscoder) -> str:
    """The model that is copied: the narrower, else the first. Raises ConfigError if neither can.

    A copy has room in every hookpoint only if the base is nowhere wider than the other.
    """
    pairs = hookpoint_pairs(dictionary)
    for model, sides in zip(
        model_pair(dictionary), (pairs, [pair.reversed() for pair in pairs]), strict=True
    ):
        if all(_width(dictionary, p.own) <= _width(dictionary, p.other) for p in sides):
            return model
    raise ConfigError(
        "no null pair: each model is wider than the other at one of their hookpoints; "
        "train on hookpoints of which one model's are nowhere wider"
    )


def null_pair(
    dictionary: Crosscoder, seed: int, unpredicted: dict[str, Float[Tensor, "base base"]]
) -> NullPair:
    """The null pair for a dictionary's hookpoints. Raises ConfigError where there can be none.

    unpredicted: by the base's hookpoint, the covariance (raw units) of what the other model's
    hookpoint does not predict of it; a hookpoint that is not in it is copied without noise.
    """
    base = base_model(dictionary)
    pairs = hookpoint_pairs(dictionary)
    _refuse_unpaired(dictionary, pairs)
    if base != model_pair(dictionary)[0]:
        pairs = [pair.reversed() for pair in pairs]
    generator = torch.Generator().manual_seed(seed)
    copies = [_copy(dictionary, pair, generator, unpredicted) for pair in pairs]
    return NullPair(base, seed, tuple(copies))


def _refuse_unpaired(dictionary: Crosscoder, pairs: list[HookpointPair]) -> None:
    """A hookpoint that is read and has no copy would bring the real models' differences in."""
    paired = {number for pair in pairs for number in (pair.own, pair.other)}
    for number in dictionary.inputs:
        if number not in paired:
            raise ConfigError(
                f"no null pair: {dictionary.hookpoints[number].name} is encoded but not "
                "reconstructed, so that it has no counterpart to be a copy of; use --null shared"
            )


def _copy(
    dictionary: Crosscoder,
    pair: HookpointPair,
    generator: torch.Generator,
    unpredicted: dict[str, Tensor],
) -> Copy:
    base, other = dictionary.hookpoints[pair.own], dictionary.hookpoints[pair.other]
    draw = torch.randn(other.width, base.width, generator=generator, dtype=torch.float64)
    rotation = torch.linalg.qr(draw).Q.T.float().contiguous()
    covariance = unpredicted.get(base.name)
    root = None if covariance is None else square_root(covariance).float()
    return Copy(base.name, other.name, rotation, root)


def square_root(covariance: Float[Tensor, "width width"]) -> Float[Tensor, "width width"]:
    """The symmetric square root of a covariance, with eigenvalues below zero taken as zero."""
    values, vectors = torch.linalg.eigh(covariance.double().cpu())
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


def _width(dictionary: Crosscoder, number: int) -> int:
    return dictionary.hookpoints[number].width
