"""The crosscoder: one sparse code that reconstructs the activations of several hookpoints.

pre = sum over reading hookpoints of W_enc[h] x[h] + b_enc; codes = activation(pre);
x_hat[h] = W_dec[h] codes + b_dec[h] for writing ones. One hookpoint makes an SAE, one that only
reads and one that only writes a transcoder, a partition a DFC. A hookpoint's weights hold only the
features that its model sees: weights that the partition forbids do not exist. Inputs and
reconstructions cross the border in raw units of the language models; inside, each hookpoint is
(x - mean) * scale, and decoder norms are in those scaled units, in which models are comparable.
In a residual dictionary x is what the other model does not predict (train.dictionary.residual).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from train.dictionary.activation import Activation, BatchTopK
from train.dictionary.codes import Codes, SparseCodes, Visibility
from train.dictionary.normalization import code_normalization
from train.dictionary.partition import DESIGNATED, Partition
from train.dictionary.preactivations import Preactivations
from train.dictionary.precision import add_product
from train.dictionary.residual import LinearPrediction
from train.dictionary_config import NormalizationName

Activations = dict[str, Float[Tensor, "batch _width"]]


@dataclass(frozen=True)
class HookpointShape:
    """What the dictionary needs to know of a hookpoint; reads: it is encoded; writes: decoded."""

    name: str
    model: str
    width: int
    reads: bool = True
    writes: bool = True


class Crosscoder(nn.Module):
    """A crosscoder with a partition; weights start at zero (see train.recipes.initialize).

    W_enc[h], W_dec[h]: (visible features, width); b_enc: (features,); b_dec[h]: (width,); h is the
    hookpoint's number as text. With `center`, b_dec is subtracted before encoding; with `means`,
    hookpoints have a mean besides their scale; with `residual`, a `prediction` is taken off raw
    activations first, for which all hookpoints must be there. norm_scale[h]: what decoder norms are
    multiplied with to be in scaled units; 1 unless the scale was folded into the weights.
    product_dtype: what the dense products of training are multiplied in, None for the weights'
    type; not saved.
    """

    scale: Tensor
    norm_scale: Tensor
    threshold: Tensor
    r_mag: nn.Parameter
    mag_bias: nn.Parameter

    def __init__(
        self,
        hookpoints: tuple[HookpointShape, ...],
        partition: Partition,
        normalization: NormalizationName = "crosscoder",
        dtype: torch.dtype = torch.float32,
        *,
        activation: Activation | None = None,
        center: bool = False,
        means: bool = False,
        residual: bool = False,
    ) -> None:
        super().__init__()
        self.hookpoints = hookpoints
        self.partition = partition
        self.normalization = normalization
        self.activation = activation or BatchTopK()
        self.center = center
        self.means = means
        self.prediction = _prediction(hookpoints, dtype) if residual else None
        self.inputs = [n for n, h in enumerate(hookpoints) if h.reads]
        self.outputs = [n for n, h in enumerate(hookpoints) if h.writes]
        self._runs = [tuple(partition.visible(h.model)) or (slice(0, 0),) for h in hookpoints]
        self.product_dtype: torch.dtype | None = None
        self._pre_BF: Tensor | None = None
        self._add_weights(dtype)
        for name, shape in self.activation.parameters(partition, len(hookpoints), normalization):
            self.register_parameter(name, nn.Parameter(torch.zeros(shape, dtype=dtype)))
        for name, shape in self.activation.buffers(partition, len(hookpoints), normalization):
            self.register_buffer(name, torch.zeros(shape, dtype=dtype))
        self.register_buffer("scale", torch.ones(len(hookpoints), dtype=dtype))
        self.register_buffer("norm_scale", torch.ones(len(hookpoints), dtype=dtype))
        for number, hookpoint in enumerate(hookpoints):
            if means:
                self.register_buffer(f"mean_{number}", torch.zeros(hookpoint.width, dtype=dtype))
            features = torch.cat([torch.arange(run.start, run.stop) for run in self._runs[number]])
            local = torch.full((partition.features,), -1)
            local[features] = torch.arange(len(features))
            self.register_buffer(f"_features_{number}", features, persistent=False)
            self.register_buffer(f"_local_{number}", local, persistent=False)

    def _add_weights(self, dtype: torch.dtype) -> None:
        def zeros(numbers: list[int], rows: bool) -> nn.ParameterDict:
            return nn.ParameterDict(
                {
                    str(n): nn.Parameter(
                        torch.zeros(
                            *([self.visible_count(n)] if rows else []),
                            self.hookpoints[n].width,
                            dtype=dtype,
                        )
                    )
                    for n in numbers
                }
            )

        self.W_enc = zeros(self.inputs, rows=True)
        self.W_dec = zeros(self.outputs, rows=True)
        self.b_enc = nn.Parameter(torch.zeros(self.partition.features, dtype=dtype))
        self.b_dec = zeros(self.outputs, rows=False)

    def tied_rows(self) -> list[Tensor] | None:
        """Places of the designated shared features in each writing hookpoint's weights, if any."""
        if DESIGNATED not in self.partition.slices:
            return None
        members = torch.arange(self.partition.features, device=self.b_enc.device)
        members = members[self.partition.slices[DESIGNATED]]
        return [self.visibility(n).local_F[members] for n in self.outputs]

    def visible_count(self, number: int) -> int:
        """Features that the hookpoint of this number sees."""
        return sum(run.stop - run.start for run in self._runs[number])

    def visibility(self, number: int) -> Visibility:
        """Which features the hookpoint of this number sees."""
        features_V = self.get_buffer(f"_features_{number}")
        return Visibility(self._runs[number], features_V, self.get_buffer(f"_local_{number}"))

    def scaled(
        self, activations: Activations, whole: bool = False
    ) -> list[Float[Tensor, "batch _width"]]:
        """Raw activations in the dictionary's dtype and scaled units, in hookpoint order.

        whole: in the same units, but a residual dictionary takes no prediction off.
        """
        return list(self.scaled_at(range(len(self.hookpoints)), activations, whole).values())

    def scaled_at(
        self, numbers: Iterable[int], activations: Activations, whole: bool = False
    ) -> dict[int, Float[Tensor, "batch _width"]]:
        """The same of some hookpoints, by number; of all of them, where there is a prediction."""
        raw = self._raw(numbers, activations, whole)
        if self.means:
            raw = {n: x_BD - self.get_buffer(f"mean_{n}") for n, x_BD in raw.items()}
        return {n: x_BD * self.scale[n] for n, x_BD in raw.items()}

    def targets(self, activations: Activations) -> Activations:
        """What `decode` is to give for these raw activations: they, or what is not predicted."""
        if self.prediction is None:
            return activations
        raw = self._raw(range(len(self.hookpoints)), activations)
        return {self.hookpoints[n].name: residual_BD for n, residual_BD in raw.items()}

    def _raw(
        self, numbers: Iterable[int], activations: Activations, whole: bool = False
    ) -> dict[int, Tensor]:
        device, dtype = self.b_enc.device, self.b_enc.dtype
        names = {n: self.hookpoints[n].name for n in numbers}
        raw = {n: activations[h].to(device, non_blocking=True).to(dtype) for n, h in names.items()}
        return raw if whole or self.prediction is None else self.prediction.residuals(raw)

    def written(self, per_hookpoint: list[Tensor]) -> list[Tensor]:
        """Those of a list in hookpoint order that belong to writing hookpoints."""
        return [per_hookpoint[number] for number in self.outputs]

    def encoder_bias(self) -> Float[Tensor, " features"]:
        """b_enc, less what subtracting b_dec from the inputs takes off every pre-activation."""
        if not self.center:
            return self.b_enc
        bias_F: Tensor = self.b_enc
        for n in self.inputs:
            if n in self.outputs:
                taken_V = self.W_enc[str(n)] @ self.b_dec[str(n)]
                bias_F = bias_F.index_add(0, self.visibility(n).features_V, -taken_V)
        return bias_F

    def preactivations(self, x: list[Float[Tensor, "batch _width"]]) -> Preactivations:
        """Pre-activations of scaled inputs, for one step of training.

        On a CPU they are written where those of the call before were: fresh memory of this size
        comes from the system page by page, which takes longer than to fill it. Autograd refuses
        to differentiate what has been written over.
        """
        bias_F = self.encoder_bias()
        shape = (len(x[self.inputs[0]]), self.partition.features)
        pre_BF = self._pre_BF
        if pre_BF is None or pre_BF.shape != shape or pre_BF.device != bias_F.device:
            pre_BF = bias_F.detach().new_empty(shape)
        self._pre_BF = pre_BF if pre_BF.device.type == "cpu" else None
        inputs = {n: x[n] for n in self.inputs}
        return Preactivations(
            self._dense_preactivations(inputs, bias_F.detach(), pre_BF, self.product_dtype),
            bias_F,
            [(x[n], self.W_enc[str(n)], self.visibility(n)) for n in self.inputs],
            self.product_dtype,
        )

    @torch.no_grad()
    def _dense_preactivations(
        self,
        x: dict[int, Tensor],
        bias_F: Tensor,
        pre_BF: Tensor | None = None,
        product_dtype: torch.dtype | None = None,
    ) -> Tensor:
        if pre_BF is None:
            pre_BF = bias_F.new_empty(len(x[self.inputs[0]]), len(bias_F))
        pre_BF.copy_(bias_F)
        for n in self.inputs:
            start = 0
            for run in self._runs[n]:
                stop = start + run.stop - run.start
                W_DV = self.W_enc[str(n)][start:stop].T
                add_product(pre_BF[:, run], x[n], W_DV, product_dtype)
                start = stop
        return pre_BF

    def decode_scaled(self, codes: Codes, bias: bool = True) -> list[Float[Tensor, "batch _width"]]:
        """Reconstructions of the writing hookpoints in scaled units, differentiable."""
        found = []
        for n in self.outputs:
            x_hat_BD = codes.decode(self.W_dec[str(n)], self.visibility(n), n)
            found.append(x_hat_BD + self.b_dec[str(n)] if bias else x_hat_BD)
        return found

    @torch.no_grad()
    def encode(self, activations: Activations) -> SparseCodes:
        """Codes of raw activations in inference mode: no row's code depends on other rows.

        Only reading hookpoints are looked at.
        """
        x = self.scaled_at(self.inputs, activations)
        pre_BF = self._dense_preactivations(x, self.encoder_bias())
        return self.activation.inference(self, pre_BF)

    @torch.no_grad()
    def decode(self, codes: Codes) -> Activations:
        """Reconstructions of the writing hookpoints, or of their residuals, in raw units."""
        raw = {}
        for number, x_hat_BD in zip(self.outputs, self.decode_scaled(codes), strict=True):
            x_hat_BD = x_hat_BD / self.scale[number]
            if self.means:
                x_hat_BD = x_hat_BD + self.get_buffer(f"mean_{number}")
            raw[self.hookpoints[number].name] = x_hat_BD
        return raw

    def decoder_norms(self) -> Float[Tensor, "hookpoints features"]:
        """|d_j| per hookpoint in scaled units; 0 where the hookpoint does not see the feature.

        Differentiable in the decoders.
        """
        norms_HF = self.b_enc.new_zeros(len(self.hookpoints), self.partition.features)
        for n in self.outputs:
            own_V = self.W_dec[str(n)].norm(dim=1) * self.norm_scale[n]
            norms_HF[n, self.visibility(n).features_V] = own_V
        return norms_HF

    def code_scale(self) -> Float[Tensor, " features"] | Float[Tensor, "hookpoints features"]:
        """The code normalization of every feature, as the decoders stand now, differentiable."""
        seen = torch.stack([self.get_buffer(f"_local_{n}") >= 0 for n in self.outputs])
        return code_normalization(self.normalization, self.decoder_norms(), seen.to(self.scale))


def _prediction(hookpoints: tuple[HookpointShape, ...], dtype: torch.dtype) -> LinearPrediction:
    """Raises ValueError unless all come in pairs, and are both encoded and reconstructed."""
    if not all(h.reads and h.writes for h in hookpoints):
        raise ValueError("a residual is of hookpoints that are both encoded and reconstructed")
    return LinearPrediction([h.model for h in hookpoints], [h.width for h in hookpoints], dtype)
