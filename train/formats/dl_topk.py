"""dictionary_learning: AutoEncoderTopK, BatchTopKSAE, MatryoshkaBatchTopKSAE.

The first two hold the same keys in newer files; only a configuration tells them apart.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.errors import DictionaryError
from train.dictionary.activation import BatchTopK, TopK
from train.formats.draft import Draft, clamped, sizes
from train.formats.files import Found
from train.formats.format import Format
from train.formats.normaliser import KEYS, read_normaliser
from train.formats.weights import Weights

LIBRARY = "dictionary_learning"


def file_k(found: Found, kind: str) -> int:
    """k of the file or of its configuration. Raises DictionaryError without one."""
    k = found.tensors["k"].item() if "k" in found.tensors else found.setting("k")
    if isinstance(k, bool) or not isinstance(k, int | float) or k != int(k) or k < 1:
        raise DictionaryError(
            f"{found.file}: no k in it or beside it ({k!r}); a {kind} needs it: "
            'write {"k": ...} into a config.json beside the file'
        )
    return int(k)


def needs_k(k: int, kind: str) -> None:
    """Raises DictionaryError where nothing says k."""
    if k < 1:
        raise DictionaryError(
            f"export: a {kind} holds k, which this dictionary does not say; add --k NUMBER"
        )


def _read_linear(found: Found, kind: str) -> Draft:
    t = found.tensors
    sizes(found, kind, TOPK)
    draft = Draft(
        kind=kind,
        W_enc=[t["encoder.weight"]],
        W_dec=[t["decoder.weight"].T],
        b_enc=t["encoder.bias"],
        b_dec=[t["b_dec"]],
        activation=BatchTopK(),
        center=True,
    )
    keep_normaliser(draft, found, 1)
    return draft


def read_topk(found: Found) -> Draft:
    """f = the k largest of relu(W_e (x - b_dec) + b_e), row by row."""
    draft = _read_linear(found, "AutoEncoderTopK")
    k = file_k(found, draft.kind)
    features = len(draft.b_enc)
    if k > features:
        raise DictionaryError(f"{found.file}: k {k} of {features} features; the file is damaged")
    draft.activation = TopK(k)
    draft.details["k"] = k
    if "threshold" in found.tensors:
        draft.kept["threshold"] = found.tensors["threshold"]
    return draft


def read_batch_topk(found: Found) -> Draft:
    """f = relu(W_e (x - b_dec) + b_e) where above the threshold."""
    draft = _read_linear(found, "BatchTopKSAE")
    draft.details["k"] = file_k(found, draft.kind)
    draft.parameters["threshold"] = clamped(draft, found.tensors["threshold"])
    return draft


def read_matryoshka(found: Found) -> Draft:
    """The same codes as BatchTopKSAE's; group_sizes (nested prefixes) are kept for the way back."""
    t = found.tensors
    known = sizes(found, "MatryoshkaBatchTopKSAE", MATRYOSHKA)
    groups = t["group_sizes"].tolist()
    if sum(groups) != known["F"]:
        raise DictionaryError(
            f"{found.file}: group_sizes {groups} add to {sum(groups)}, not {known['F']} features"
        )
    draft = Draft(
        kind="MatryoshkaBatchTopKSAE",
        W_enc=[t["W_enc"].T],
        W_dec=[t["W_dec"]],
        b_enc=t["b_enc"],
        b_dec=[t["b_dec"]],
        activation=BatchTopK(),
        center=True,
        kept={"group_sizes": t["group_sizes"]},
        details={"k": file_k(found, "MatryoshkaBatchTopKSAE"), "group_sizes": groups},
    )
    draft.parameters["threshold"] = clamped(draft, t["threshold"])
    return draft


def keep_normaliser(draft: Draft, found: Found, layers: int) -> None:
    """Takes scale and means out of the file, and keeps its own figures for the way back."""
    draft.kept |= {key: found.tensors[key] for key in KEYS if key in found.tensors}
    if "activation_mean" in found.tensors:
        width = draft.W_dec[0].shape[1]
        for key in ("activation_mean", "activation_std"):
            have = found.tensors.get(key)
            if have is None or have.numel() != layers * width:
                shape = None if have is None else tuple(have.shape)
                raise DictionaryError(
                    f"{found.file}: {key} has shape {shape}, not {layers} x {width}; "
                    "the normaliser is damaged"
                )
    if (normaliser := read_normaliser(found.tensors, layers)) is not None:
        draft.scale, draft.mean, notes = normaliser
        draft.notes += notes


def write_topk(kind: str, weights: Weights, k: int, groups: list[int] | None) -> dict[str, Tensor]:
    """State dict of one of these classes."""
    threshold = weights.parameters.get("threshold", torch.tensor(-1.0))
    figures = {"k": torch.tensor(k, dtype=torch.int32), "threshold": threshold.reshape(())}
    if kind == "MatryoshkaBatchTopKSAE":
        return {
            "W_enc": weights.W_enc_FD.T,
            "b_enc": weights.b_enc_F,
            "W_dec": weights.W_dec_FD,
            "b_dec": weights.b_dec_D,
            "group_sizes": torch.tensor(groups or [len(weights.b_enc_F)]),
            **figures,
        }
    return {
        "b_dec": weights.b_dec_D,
        "decoder.weight": weights.W_dec_FD.T,
        "encoder.weight": weights.W_enc_FD,
        "encoder.bias": weights.b_enc_F,
        **figures,
    }


TOPK = {"encoder.weight": "Fd", "encoder.bias": "F", "decoder.weight": "dF", "b_dec": "d"}
BATCH_TOPK = {**TOPK, "k": "", "threshold": ""}
MATRYOSHKA = {
    "W_enc": "dF", "b_enc": "F", "W_dec": "Fd", "b_dec": "d",
    "k": "", "threshold": "", "group_sizes": "G",
}  # fmt: skip
FORMATS = (
    Format(LIBRARY, "AutoEncoderTopK", TOPK, read_topk, frozenset({"k", "threshold"})),
    Format(LIBRARY, "BatchTopKSAE", BATCH_TOPK, read_batch_topk, frozenset(KEYS)),
    Format(LIBRARY, "MatryoshkaBatchTopKSAE", MATRYOSHKA, read_matryoshka),
)
