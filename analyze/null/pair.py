"""The null pair: one model beside a rotated copy of itself, and nothing that only one of them has.

Each of the other model's hookpoints gets, in place of its own rows, (x + e) Q: x the rows of the
base's hookpoint, Q a random matrix with orthonormal rows from the base's width to the other's, and
e noise. Every feature of one is a linear direction of the other. Two real models, though, do not
share what they share to the last digit; so e is Gaussian, and such that a linear map predicts x
from its copies as well as it does from the other model (`analyze.null.noise`), all hookpoints
together: what is lacking in one layer of the other model is lacking in the next, too. Without noise
it is an exact copy: the model against itself. What a map between one pair of hookpoints alone can
do is not kept where there are several.

B rows, D_b and D_o widths of a hookpoint of the base and of the other, W the base's summed widths.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

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
    """One hookpoint of the other model, made from one of the base by orthonormal rows."""

    base: str
    other: str
    rotation: Float[Tensor, "base other"]


@dataclass(frozen=True)
class NullPair:
    """The copies of all hookpoints of a model: the base; `seed`: of the rotations.

    noise_root: R of e = R g, g standard normal, in the base's raw units, its hookpoints one behind
    the other in the order of the copies; None for no noise. It is on the dictionary's device, where
    copies are made: 2 B W^2 FLOPs a batch.
    """

    model: str
    seed: int
    copies: tuple[Copy, ...]
    noise_root: Float[Tensor, "bases bases"] | None

    @property
    def name(self) -> str:
        """Names it by its content."""
        total = hashlib.sha256()
        for part in (*(copy.rotation for copy in self.copies), self.noise_root):
            if part is not None:
                total.update(part.cpu().numpy().tobytes())
        return f"{self.model} beside its rotated copy {self.seed} ({total.hexdigest()[:16]})"

    def view(self, batch: Batch) -> Activations:
        """A batch of the real pair's raw rows as one of the null pair's; the same again for it."""
        seen = dict(batch.activations)
        device = self.copies[0].rotation.device
        bases = [seen[copy.base].to(device).float() for copy in self.copies]
        for copy, x_BD, e_BD in zip(self.copies, bases, self._noise(batch), strict=True):
            made_BD = (x_BD if e_BD is None else x_BD + e_BD) @ copy.rotation
            seen[copy.other] = made_BD.to(seen[copy.base].device)
        return seen

    def _noise(self, batch: Batch) -> Sequence[Tensor | None]:
        """Of each copy, drawn for the batch by the numbers of its first and last row."""
        if self.noise_root is None:
            return [None] * len(self.copies)
        rows, device = batch.rows, self.noise_root.device
        seed = hash((int(rows[0]), int(rows[-1]), len(rows))) & (2**63 - 1)
        draw_BW = torch.randn(
            len(rows),
            len(self.noise_root),
            generator=torch.Generator(device).manual_seed(seed),
            device=device,
        )
        e_BW = draw_BW @ self.noise_root.T
        return e_BW.split([len(copy.rotation) for copy in self.copies], dim=1)


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


def base_pairs(dictionary: Crosscoder) -> list[HookpointPair]:
    """The hookpoints of the model that is copied, each with the one that gets its copy."""
    pairs = hookpoint_pairs(dictionary)
    is_first = base_model(dictionary) == model_pair(dictionary)[0]
    return pairs if is_first else [pair.reversed() for pair in pairs]


def null_pair(
    dictionary: Crosscoder, seed: int, noise_root: Float[Tensor, "bases bases"] | None
) -> NullPair:
    """The null pair for a dictionary's hookpoints. Raises ConfigError where there can be none.

    noise_root: as `analyze.null.noise.blurring` gives it; None for an exact copy.
    """
    pairs = base_pairs(dictionary)
    _refuse_unpaired(dictionary, pairs)
    generator = torch.Generator().manual_seed(seed)
    copies = tuple(_copy(dictionary, pair, generator) for pair in pairs)
    if noise_root is not None:
        noise_root = noise_root.to(dictionary.b_enc.device, torch.float32)
    return NullPair(base_model(dictionary), seed, copies, noise_root)


def _refuse_unpaired(dictionary: Crosscoder, pairs: list[HookpointPair]) -> None:
    """A hookpoint that is read and has no copy would bring the real models' differences in."""
    paired = {number for pair in pairs for number in (pair.own, pair.other)}
    for number in dictionary.inputs:
        if number not in paired:
            raise ConfigError(
                f"no null pair: {dictionary.hookpoints[number].name} is encoded but not "
                "reconstructed, so that it has no counterpart to be a copy of; use --null shared"
            )


def _copy(dictionary: Crosscoder, pair: HookpointPair, generator: torch.Generator) -> Copy:
    base, other = dictionary.hookpoints[pair.own], dictionary.hookpoints[pair.other]
    draw = torch.randn(other.width, base.width, generator=generator, dtype=torch.float64)
    rotation = torch.linalg.qr(draw).Q.T.float().contiguous()
    return Copy(base.name, other.name, rotation.to(dictionary.b_enc.device))


def _width(dictionary: Crosscoder, number: int) -> int:
    return dictionary.hookpoints[number].width
