"""A single-model dictionary in another library's terms: no scale, no mean, its own score rule.

What is changed here is algebra and leaves reconstructions as they are; where nothing needs to be
changed the tensors are the dictionary's own, to the bit.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from pipeline.errors import DictionaryError
from train.dictionary.activation import Activation, BatchTopK
from train.dictionary.crosscoder import Crosscoder


@dataclass(frozen=True)
class Weights:
    """One hookpoint in, one out (the same, or a transcoder's second).

    W_enc_FD: (F, D of the input); W_dec_FD: (F, D of the output); score_F: what relu(pre) is
    multiplied with to be ranked, None for 1; center: b_dec is subtracted before encoding;
    parameters: threshold, r_mag, mag_bias of the activation; notes: what was changed.
    """

    W_enc_FD: Tensor
    W_dec_FD: Tensor
    b_enc_F: Tensor
    b_dec_D: Tensor
    activation: Activation
    center: bool
    score_F: Tensor | None = None
    parameters: dict[str, Tensor] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def with_center(self, center: bool) -> Weights:
        """The same function with b_dec subtracted before encoding, or not."""
        if center == self.center:
            return self
        shift_F = self.W_enc_FD @ self.b_dec_D * (1 if center else -1)
        parameters = dict(self.parameters)
        if "mag_bias" in parameters:
            parameters["mag_bias"] = parameters["mag_bias"] + parameters["r_mag"].exp() * shift_F
        what = "subtracts b_dec first" if center else "does not subtract b_dec first"
        note = f"the format {what}: W_enc b_dec went into the encoder's bias"
        return replace(
            self,
            center=center,
            b_enc_F=self.b_enc_F + shift_F,
            parameters=parameters,
            notes=(*self.notes, note),
        )

    def with_unit_score(self) -> Weights:
        """The same reconstructions with codes that are their own scores."""
        if self.score_F is None:
            return self
        score_F1 = self.score_F[:, None]
        inverse_F1 = torch.where(score_F1 > 0, 1 / score_F1, 0)
        return replace(
            self,
            W_enc_FD=self.W_enc_FD * score_F1,
            b_enc_F=self.b_enc_F * self.score_F,
            W_dec_FD=self.W_dec_FD * inverse_F1,
            score_F=None,
            notes=(*self.notes, "codes there are codes here times their code normalization"),
        )


def plain_weights(dictionary: Crosscoder, fold: bool = True) -> Weights:
    """Weights of a single-model dictionary; scale and mean go into them unless `fold` is False.

    Raises DictionaryError for more than one model or hookpoint.
    """
    inputs, outputs = dictionary.inputs, dictionary.outputs
    if len(inputs) != 1 or len(outputs) != 1:
        names = ", ".join(hookpoint.name for hookpoint in dictionary.hookpoints)
        raise DictionaryError(
            f"export: a format of one hookpoint, the dictionary has {names}; "
            "export it as dictionary_learning"
        )
    (read,), (write,) = inputs, outputs
    features = dictionary.partition.features
    if dictionary.visible_count(read) != features or dictionary.visible_count(write) != features:
        raise DictionaryError("export: the dictionary has features that its hookpoint does not see")
    if isinstance(dictionary.activation, BatchTopK) and dictionary.activation.group_shares:
        raise DictionaryError("export: a threshold per feature group has no place in other formats")
    ranked = dictionary.activation.kind in ("topk", "batch_topk")
    score = dictionary.code_scale() if ranked and dictionary.normalization != "none" else None
    if score is not None and score.dim() == 2:
        score = score[write]
    parameters = {
        name: value.detach()
        for name, value in dictionary.state_dict().items()
        if name in ("threshold", "r_mag", "mag_bias")
    }
    if dictionary.activation.kind == "batch_topk" and dictionary.normalization == "decoupled":
        parameters["threshold"] = parameters["threshold"][write]
    weights = Weights(
        W_enc_FD=dictionary.W_enc[str(read)].detach(),
        W_dec_FD=dictionary.W_dec[str(write)].detach(),
        b_enc_F=dictionary.b_enc.detach(),
        b_dec_D=dictionary.b_dec[str(write)].detach(),
        activation=dictionary.activation,
        center=dictionary.center,
        score_F=score,
        parameters=parameters,
    )
    return _folded(weights, dictionary, read, write) if fold else weights


def _folded(weights: Weights, dictionary: Crosscoder, read: int, write: int) -> Weights:
    """Scale and means in the weights: pre = s W_enc (x - m) + b_enc, x_hat = x_hat' / s + m."""
    scale_in, scale_out = dictionary.scale[read], dictionary.scale[write]
    if bool(scale_in == 1) and bool(scale_out == 1) and not dictionary.means:
        return weights
    W_enc_FD = weights.W_enc_FD * scale_in
    b_dec_D, b_enc_F = weights.b_dec_D / scale_out, weights.b_enc_F
    parameters = dict(weights.parameters)
    if dictionary.means:
        b_dec_D = b_dec_D + dictionary.get_buffer(f"mean_{write}")
        if not weights.center:
            shift_F = W_enc_FD @ dictionary.get_buffer(f"mean_{read}")
            b_enc_F = b_enc_F - shift_F
            if "mag_bias" in parameters:
                gain_F = parameters["r_mag"].exp()
                parameters["mag_bias"] = parameters["mag_bias"] - gain_F * shift_F
    return replace(
        weights,
        W_enc_FD=W_enc_FD,
        W_dec_FD=weights.W_dec_FD / scale_out,
        b_enc_F=b_enc_F,
        b_dec_D=b_dec_D,
        parameters=parameters,
        notes=(*weights.notes, "the activation scale was folded into the weights"),
    )
