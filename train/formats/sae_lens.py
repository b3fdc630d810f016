"""SAELens: a folder with `cfg.json` + `sae_weights.safetensors`, as sae-lens 6 loads and saves it.

Architectures: standard, topk, jumprelu, gated; transcoder, jumprelu_transcoder; the checkpoints of
training called batchtopk and matryoshka_batchtopk (released, those are jumprelu).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pipeline.errors import DictionaryError
from train.dictionary.activation import Activation, BatchTopK, Gated, JumpReLU, ReLU, TopK
from train.formats.dl_plain import CENTER
from train.formats.dl_topk import file_k
from train.formats.draft import Draft, clamped, sizes
from train.formats.files import Found
from train.formats.format import Format
from train.formats.kept import dtype_name
from train.formats.weights import Weights

LIBRARY = "sae_lens"
WEIGHTS, CONFIG = "sae_weights.safetensors", "cfg.json"
VERSION = "6.0.0"  # the first whose cfg.json has this form; older ones are told by its absence
RESCALE = "rescale_acts_by_decoder_norm"
THRESHOLDED = ("jumprelu", "jumprelu_transcoder")
TRAINED = ("batchtopk", "matryoshka_batchtopk")
KNOWN = ("standard", "topk", "gated", "transcoder", *THRESHOLDED, *TRAINED)
PER_ROW = ("constant_norm_rescale", "layer_norm")


def read_sae_lens(found: Found) -> Draft:
    """Reads any of the architectures. Raises DictionaryError for one that is not known."""
    t, architecture = found.tensors, architecture_of(found)
    shapes = GATED if architecture == "gated" else PLAIN
    sizes(found, architecture, shapes)
    _refuse_scaling(found)
    rescaled = architecture in ("topk", *TRAINED) and bool(found.setting(RESCALE))
    transcoder = architecture.endswith("transcoder")
    draft = Draft(
        kind=architecture,
        W_enc=[t["W_enc"].T],
        W_dec=[t["W_dec"]],
        b_enc=t["b_gate" if architecture == "gated" else "b_enc"],
        b_dec=[t["b_dec"]],
        activation=_activation(found, architecture),
        normalization="sae" if rescaled else "none",
        center=not transcoder and found.config.get(CENTER, True) is not False,
        transcoder=transcoder,
        details={"cfg": found.config},
    )
    if architecture == "gated":
        draft.parameters = {"r_mag": t["r_mag"], "mag_bias": t["b_mag"]}
    elif architecture in THRESHOLDED:
        draft.parameters["threshold"] = clamped(draft, _needed(found, "threshold", architecture))
    elif architecture in TRAINED:
        draft.parameters["threshold"] = _needed(found, "topk_threshold", architecture)
    _say_normalization(found, draft)
    return draft


def architecture_of(found: Found) -> str:
    """Raises DictionaryError for a config that is missing or not known."""
    if not found.config:
        raise DictionaryError(f"{found.file}: no {CONFIG} beside it; copy the whole folder")
    architecture = found.config.get("architecture", "standard")
    function = found.config.get("activation_fn", found.config.get("activation_fn_str", "relu"))
    if architecture == "standard" and function == "topk":  # before sae-lens 6
        architecture = "topk"
    if architecture not in KNOWN or function not in ("relu", "topk"):
        raise DictionaryError(
            f"{found.file}: architecture {architecture!r} with activation {function!r}; "
            f"understood are {', '.join(KNOWN)}"
        )
    return str(architecture)


def _activation(found: Found, architecture: str) -> Activation:
    if architecture == "topk":
        kwargs = found.config.get("activation_fn_kwargs")
        if "k" not in found.config and isinstance(kwargs, dict) and "k" in kwargs:
            return TopK(int(kwargs["k"]))
        return TopK(file_k(found, architecture))
    if architecture == "gated":
        return Gated()
    if architecture in THRESHOLDED:
        return JumpReLU()
    return BatchTopK() if architecture in TRAINED else ReLU()


def _needed(found: Found, key: str, architecture: str) -> Tensor:
    if key not in found.tensors:
        raise DictionaryError(f"{found.file}: no {key} in a {architecture}; name an undamaged file")
    return found.tensors[key]


def _refuse_scaling(found: Found) -> None:
    normalize = found.config.get("normalize_activations")
    if normalize in PER_ROW:
        raise DictionaryError(
            f"{found.file}: normalize_activations {normalize!r} rescales every row by itself, "
            "which no dictionary here does; import one trained without it"
        )
    scaling = found.tensors.get("scaling_factor")
    if scaling is not None and not torch.equal(scaling, torch.ones_like(scaling)):
        raise DictionaryError(
            f"{found.file}: has a finetuned scaling_factor; fold it into W_dec before importing"
        )


def _say_normalization(found: Found, draft: Draft) -> None:
    normalize = found.config.get("normalize_activations")
    if normalize not in (None, False, "none"):
        draft.notes.append(
            f"normalize_activations {normalize!r}: the weights expect activations scaled that way "
            "unless the factor was folded in; it is not in the file"
        )
    if found.config.get("reshape_activations") == "hook_z":
        draft.notes.append("hook_z: activations are those of all heads, one after another")
    if draft.normalization == "sae":
        draft.notes.append("codes there are codes here times |W_dec[i]|")


def write_sae_lens(
    weights: Weights, transcoder: bool, source: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Tensor], list[str]]:
    """cfg.json, tensors and notes. Raises DictionaryError for a transcoder with TopK or gates."""
    kind, notes = weights.activation.kind, list(weights.notes)
    if transcoder and kind in ("topk", "gated"):
        raise DictionaryError(f"export to {LIBRARY}: it has no {kind} transcoder")
    tensors = {"W_enc": weights.W_enc_FD.T, "W_dec": weights.W_dec_FD, "b_dec": weights.b_dec_D}
    if kind == "gated":
        tensors |= {
            "b_gate": weights.b_enc_F,
            "b_mag": weights.parameters["mag_bias"],
            "r_mag": weights.parameters["r_mag"],
        }
    else:
        tensors["b_enc"] = weights.b_enc_F
    architecture = {"relu": "standard", "topk": "topk", "gated": "gated"}.get(kind, "jumprelu")
    cfg: dict[str, Any] = {}
    if kind == "topk" and isinstance(weights.activation, TopK):
        cfg = {"k": weights.activation.k, RESCALE: weights.score_F is not None}
    elif kind == "jump_relu":
        tensors["threshold"] = weights.parameters["threshold"]
    elif kind == "batch_topk":
        tensors["threshold"] = _feature_thresholds(weights)
        notes.append("sae-lens keeps BatchTopK as jumprelu: the threshold is one per feature")
    if transcoder:
        architecture = "transcoder" if architecture == "standard" else "jumprelu_transcoder"
        cfg["d_out"] = weights.W_dec_FD.shape[1]
    written = {
        "architecture": architecture,
        "d_in": weights.W_enc_FD.shape[1],
        "d_sae": len(weights.b_enc_F),
        "dtype": dtype_name(weights.W_enc_FD.dtype),
        "device": "cpu",
        CENTER: weights.center,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {"sae_lens_version": VERSION},
        **cfg,
    }
    before = source.get("cfg")
    same = source.get("library") == LIBRARY and source.get("kind") == architecture
    if same and isinstance(before, dict) and before.get("architecture") == architecture:
        written |= {key: before[key] for key in before if key not in cfg and key != CENTER}
    return written, tensors, notes


def _feature_thresholds(weights: Weights) -> Tensor:
    """Where relu(pre) * score > threshold begins, per feature: never for a score of 0."""
    threshold = weights.parameters["threshold"]
    if weights.score_F is None:
        return torch.ones_like(weights.b_enc_F) * threshold
    never = torch.finfo(weights.b_enc_F.dtype).max
    return torch.where(weights.score_F > 0, threshold / weights.score_F, never)


PLAIN = {"W_enc": "dF", "b_enc": "F", "W_dec": "Fo", "b_dec": "o"}
GATED = {"W_enc": "dF", "W_dec": "Fd", "b_dec": "d", "b_gate": "F", "b_mag": "F", "r_mag": "F"}
MORE = frozenset({"threshold", "topk_threshold", "scaling_factor"})
FORMATS = (
    Format(LIBRARY, "SAELens", PLAIN, read_sae_lens, MORE, file=WEIGHTS),
    Format(LIBRARY, "SAELens gated", GATED, read_sae_lens, frozenset({"scaling_factor"}), WEIGHTS),
)
