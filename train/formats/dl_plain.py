"""dictionary_learning: AutoEncoder, AutoEncoderNew, GatedAutoEncoder, JumpReluAutoEncoder.

Gated and JumpReLU codes there may be multiplied by the feature's decoder norm, which their decode
divides by again: reconstructions are the same, codes differ by that factor.
"""

from __future__ import annotations

from torch import Tensor

from train.dictionary.activation import Gated, JumpReLU, ReLU
from train.formats.draft import Draft, clamped, sizes
from train.formats.files import Found
from train.formats.format import Format
from train.formats.weights import Weights

LIBRARY = "dictionary_learning"
CENTER = "apply_b_dec_to_input"
NORM_NOTE = "codes there may carry the factor |W_dec[i]|; reconstructions are the same"


def read_auto_encoder(found: Found) -> Draft:
    """f = relu(W_e (x - bias) + b_e), x_hat = W_d f + bias."""
    t = found.tensors
    sizes(found, "AutoEncoder", AUTO_ENCODER)
    return Draft(
        kind="AutoEncoder",
        W_enc=[t["encoder.weight"]],
        W_dec=[t["decoder.weight"].T],
        b_enc=t["encoder.bias"],
        b_dec=[t["bias"]],
        activation=ReLU(),
        center=True,
    )


def read_auto_encoder_new(found: Found) -> Draft:
    """f = relu(W_e x + b_e), x_hat = W_d f + b_d."""
    t = found.tensors
    sizes(found, "AutoEncoderNew", AUTO_ENCODER_NEW)
    return Draft(
        kind="AutoEncoderNew",
        W_enc=[t["encoder.weight"]],
        W_dec=[t["decoder.weight"].T],
        b_enc=t["encoder.bias"],
        b_dec=[t["decoder.bias"]],
        activation=ReLU(),
    )


def read_gated(found: Found) -> Draft:
    """f = 1[x_e + gate_bias > 0] relu(exp(r_mag) x_e + mag_bias) with x_e = W_e (x - b)."""
    t = found.tensors
    sizes(found, "GatedAutoEncoder", GATED)
    return Draft(
        kind="GatedAutoEncoder",
        W_enc=[t["encoder.weight"]],
        W_dec=[t["decoder.weight"].T],
        b_enc=t["gate_bias"],
        b_dec=[t["decoder_bias"]],
        activation=Gated(),
        center=True,
        parameters={"r_mag": t["r_mag"], "mag_bias": t["mag_bias"]},
        notes=[NORM_NOTE],
    )


def read_jump_relu(found: Found) -> Draft:
    """f = relu(pre 1[pre > threshold]); pre of x, or of x - b_dec where the config says so."""
    t, bandwidth = found.tensors, found.setting("bandwidth")
    sizes(found, "JumpReluAutoEncoder", JUMP_RELU)
    draft = Draft(
        kind="JumpReluAutoEncoder",
        W_enc=[t["W_enc"].T],
        W_dec=[t["W_dec"]],
        b_enc=t["b_enc"],
        b_dec=[t["b_dec"]],
        activation=JumpReLU(bandwidth) if isinstance(bandwidth, float) else JumpReLU(),
        center=bool(found.setting(CENTER)),
        notes=[NORM_NOTE],
    )
    draft.parameters["threshold"] = clamped(draft, t["threshold"])
    if found.setting(CENTER) is None:
        draft.notes.append(f"no {CENTER} beside the file: taken as false, b_dec is not subtracted")
    return draft


def write_plain(kind: str, weights: Weights) -> dict[str, Tensor]:
    """State dict of one of these classes."""
    encoder, decoder = weights.W_enc_FD, weights.W_dec_FD.T
    if kind == "AutoEncoder":
        return {
            "bias": weights.b_dec_D,
            "encoder.weight": encoder,
            "encoder.bias": weights.b_enc_F,
            "decoder.weight": decoder,
        }
    if kind == "AutoEncoderNew":
        return {
            "encoder.weight": encoder,
            "encoder.bias": weights.b_enc_F,
            "decoder.weight": decoder,
            "decoder.bias": weights.b_dec_D,
        }
    if kind == "GatedAutoEncoder":
        return {
            "decoder_bias": weights.b_dec_D,
            "r_mag": weights.parameters["r_mag"],
            "gate_bias": weights.b_enc_F,
            "mag_bias": weights.parameters["mag_bias"],
            "encoder.weight": encoder,
            "decoder.weight": decoder,
        }
    return {
        "W_enc": encoder.T,
        "b_enc": weights.b_enc_F,
        "W_dec": weights.W_dec_FD,
        "b_dec": weights.b_dec_D,
        "threshold": weights.parameters["threshold"],
    }


AUTO_ENCODER = {"bias": "d", "encoder.weight": "Fd", "encoder.bias": "F", "decoder.weight": "dF"}
AUTO_ENCODER_NEW = {
    "encoder.weight": "Fd", "encoder.bias": "F", "decoder.weight": "dF", "decoder.bias": "d",
}  # fmt: skip
GATED = {
    "decoder_bias": "d", "r_mag": "F", "gate_bias": "F", "mag_bias": "F",
    "encoder.weight": "Fd", "decoder.weight": "dF",
}  # fmt: skip
JUMP_RELU = {"W_enc": "dF", "b_enc": "F", "W_dec": "Fd", "b_dec": "d", "threshold": "F"}
FORMATS = (
    Format(LIBRARY, "AutoEncoder", AUTO_ENCODER, read_auto_encoder),
    Format(LIBRARY, "AutoEncoderNew", AUTO_ENCODER_NEW, read_auto_encoder_new),
    Format(LIBRARY, "GatedAutoEncoder", GATED, read_gated),
    Format(LIBRARY, "JumpReluAutoEncoder", JUMP_RELU, read_jump_relu),
)
