"""The crosscoder: one sparse code that reconstructs the activations of several hookpoints.

pre = sum over hookpoints of W_enc[h] x[h] + b_enc; codes = selection(relu(pre));
x_hat[h] = W_dec[h] codes + b_dec[h]. A hookpoint's weights hold only the features that its model
sees: weights that the partition forbids do not exist. Inputs and reconstructions cross the border
in raw units of the language models; inside, each hookpoint is multiplied by its `scale`, and
decoder norms are in those scaled units, in which models are comparable.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from train.config import NormalizationName
from train.dictionary.codes import (
    Pattern,
    SparseCodes,
    Visibility,
    decode_at,
    select_preactivations,
)
from train.dictionary.partition import Partition
from train.dictionary.selection import above_threshold, code_normalization

Activations = dict[str, Float[Tensor, "batch _width"]]


@dataclass(frozen=True)
class HookpointShape:
    """What the dictionary needs to know of a hookpoint."""

    name: str
    model: str
    width: int


class Crosscoder(nn.Module):
    """A crosscoder with a partition; weights start at zero (see train.recipes.initialize).

    W_enc[h], W_dec[h]: (visible features, width); b_enc: (features,); b_dec[h]: (width,).
    """

    scale: Tensor
    threshold: Tensor

    def __init__(
        self,
        hookpoints: tuple[HookpointShape, ...],
        partition: Partition,
        normalization: NormalizationName = "crosscoder",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.hookpoints = hookpoints
        self.partition = partition
        self.normalization = normalization

        def zeros(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.zeros(*shape, dtype=dtype))

        runs = [partition.visible(hookpoint.model) for hookpoint in hookpoints]
        sizes = [sum(run.stop - run.start for run in own) for own in runs]
        self.W_enc = nn.ParameterList(
            zeros(size, h.width) for size, h in zip(sizes, hookpoints, strict=True)
        )
        self.W_dec = nn.ParameterList(
            zeros(size, h.width) for size, h in zip(sizes, hookpoints, strict=True)
        )
        self.b_enc = zeros(partition.features)
        self.b_dec = nn.ParameterList(zeros(hookpoint.width) for hookpoint in hookpoints)
        self.register_buffer("scale", torch.ones(len(hookpoints), dtype=dtype))
        self.register_buffer("threshold", torch.zeros((), dtype=dtype))
        self._runs = runs
        for number, own in enumerate(runs):
            features = torch.cat([torch.arange(run.start, run.stop) for run in own])
            local = torch.full((partition.features,), -1)
            local[features] = torch.arange(len(features))
            self.register_buffer(f"_features_{number}", features, persistent=False)
            self.register_buffer(f"_local_{number}", local, persistent=False)

    def visibility(self, number: int) -> Visibility:
        """Which features the hookpoint of this number sees."""
        return Visibility(
            self.get_buffer(f"_features_{number}"), self.get_buffer(f"_local_{number}")
        )

    def scaled(self, activations: Activations) -> list[Float[Tensor, "batch _width"]]:
        """Raw activations in the dictionary's dtype and scaled units, in hookpoint order."""
        device, dtype = self.b_enc.device, self.b_enc.dtype
        return [
            activations[h.name].to(device, non_blocking=True).to(dtype) * self.scale[number]
            for number, h in enumerate(self.hookpoints)
        ]

    @torch.no_grad()
    def preactivations(
        self, x: list[Float[Tensor, "batch _width"]]
    ) -> Float[Tensor, "batch features"]:
        """Dense pre-activations of scaled inputs, without gradient."""
        pre_BF = self.b_enc.repeat(len(x[0]), 1)
        for x_BD, W_enc_VD, runs in zip(x, self.W_enc, self._runs, strict=True):
            start = 0
            for run in runs:
                stop = start + run.stop - run.start
                pre_BF[:, run].addmm_(x_BD, W_enc_VD[start:stop].T)
                start = stop
        return pre_BF

    def codes_at(
        self, x: list[Float[Tensor, "batch _width"]], pre_BF: Tensor, pattern: Pattern
    ) -> SparseCodes:
        """relu(pre) at the pattern's entries, differentiable in the encoder."""
        parts = [
            (x_BD, W_enc_VD, self.visibility(number))
            for number, (x_BD, W_enc_VD) in enumerate(zip(x, self.W_enc, strict=True))
        ]
        values = select_preactivations(pre_BF, pattern, self.b_enc, parts)
        return SparseCodes(pattern, values.relu())

    def decode_scaled(
        self, codes: SparseCodes, bias: bool = True
    ) -> list[Float[Tensor, "batch _width"]]:
        """Reconstructions in scaled units, in hookpoint order, differentiable."""
        return [
            decode_at(codes, W_dec_VD, self.visibility(number)) + (b_dec_D if bias else 0)
            for number, (W_dec_VD, b_dec_D) in enumerate(zip(self.W_dec, self.b_dec, strict=True))
        ]

    @torch.no_grad()
    def encode(self, activations: Activations) -> SparseCodes:
        """Codes of raw activations in inference mode: scores above the learned threshold."""
        x = self.scaled(activations)
        pre_BF = self.preactivations(x)
        pattern = above_threshold(pre_BF, self.code_scale(), self.threshold)
        return SparseCodes(pattern, pre_BF.view(-1)[pattern.flat])

    @torch.no_grad()
    def decode(self, codes: SparseCodes) -> Activations:
        """Reconstructions in raw units."""
        scaled = self.decode_scaled(codes)
        return {
            hookpoint.name: scaled[number] / self.scale[number]
            for number, hookpoint in enumerate(self.hookpoints)
        }

    @torch.no_grad()
    def decoder_norms(self) -> Float[Tensor, "hookpoints features"]:
        """|d_j| per hookpoint in scaled units; 0 where the hookpoint does not see the feature."""
        norms_HF = self.b_enc.new_zeros(len(self.hookpoints), self.partition.features)
        for number, W_dec_VD in enumerate(self.W_dec):
            norms_HF[number, self.visibility(number).features_V] = W_dec_VD.norm(dim=1)
        return norms_HF

    @torch.no_grad()
    def code_scale(self) -> Float[Tensor, " features"]:
        """The code normalization of every feature, as the decoders stand now."""
        seen = torch.stack([self.get_buffer(f"_local_{n}") >= 0 for n in range(len(self.W_dec))])
        return code_normalization(self.normalization, self.decoder_norms(), seen.to(self.scale))
