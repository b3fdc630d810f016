"""The dictionary_learning forks: CrossCoder, BatchTopKCrossCoder, and both as dedicated feature
crosscoders (arXiv 2602.11729).

A DFC's features are [A | B | shared] there, with sizes int(F * pct), and [A | shared | B] here.
L layers, D width, F features.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from pipeline.errors import DictionaryError
from train.dictionary.activation import BatchTopK, ReLU
from train.dictionary_config import NormalizationName
from train.formats.dl_topk import file_k, keep_normaliser
from train.formats.draft import Draft, clamped, sizes
from train.formats.files import PARTITION, Found
from train.formats.format import Format
from train.formats.normaliser import KEYS

LIBRARY = "dictionary_learning"
ID = "code_normalization_id"
NORMALIZATIONS: dict[int, NormalizationName] = {
    1: "crosscoder",
    2: "sae",
    3: "mixed",
    4: "none",
    5: "decoupled",
}
DEDICATED = "DedicatedFeature"
PLAIN = {
    "encoder.weight": "LdF", "encoder.bias": "F", "decoder.weight": "LFd", "decoder.bias": "Ld",
}  # fmt: skip


class Shares(NamedTuple):
    """What `_partition_config` says."""

    features: int
    a: float
    b: float

    @property
    def sizes(self) -> tuple[int, int]:
        """Features of A alone and of B alone."""
        return int(self.features * self.a), int(self.features * self.b)


def read_crosscoder(found: Found) -> Draft:
    """f = relu(sum_l x_l W_e[l] + b_e), thresholded if BatchTopK; x_hat_l = f W_d[l] + b_d[l]."""
    t, thresholded = found.tensors, "threshold" in found.tensors
    kind = "BatchTopKCrossCoder" if thresholded else "CrossCoder"
    kind = (DEDICATED if PARTITION in found.other else "") + kind
    layers = sizes(found, kind, PLAIN)["L"]
    draft = Draft(
        kind=kind,
        W_enc=[W_dF.T for W_dF in t["encoder.weight"]],
        W_dec=list(t["decoder.weight"]),
        b_enc=t["encoder.bias"],
        b_dec=list(t["decoder.bias"]),
        activation=BatchTopK() if thresholded else ReLU(),
    )
    draft.normalization = _normalization(found, draft)
    keep_normaliser(draft, found, layers)
    if thresholded:
        draft.details["k"] = file_k(found, kind)
        wanted = (layers,) if draft.normalization == "decoupled" else ()
        if tuple(t["threshold"].shape) != wanted:
            raise DictionaryError(
                f"{found.file}: threshold has shape {tuple(t['threshold'].shape)}, not {wanted} "
                f"as code normalization {draft.normalization} needs; name an undamaged file"
            )
        draft.parameters["threshold"] = clamped(draft, t["threshold"])
    if PARTITION in found.other:
        _divide(draft, found, layers)
    return draft


def _normalization(found: Found, draft: Draft) -> NormalizationName:
    if ID not in found.tensors:
        draft.notes.append(f"no {ID} in the file: code normalization taken as CROSSCODER")
        draft.details["without_id"] = True
        return "crosscoder"
    number = int(found.tensors[ID])
    if number not in NORMALIZATIONS:
        known = ", ".join(f"{n} {name}" for n, name in NORMALIZATIONS.items())
        raise DictionaryError(f"{found.file}: {ID} {number} is none of {known}; convert the file")
    if number == 3:
        draft.notes.append("weights of MIXED are not in the file: taken as 1.0 SAE, 0.1 CROSSCODER")
    return NORMALIZATIONS[number]


def _divide(draft: Draft, found: Found, layers: int) -> None:
    """Checks that forbidden entries are zero, and puts the features into this project's order."""
    config = found.other[PARTITION]
    shares = _shares(found, config)
    if layers != 2 or shares.features != len(draft.b_enc):
        raise DictionaryError(
            f"{found.file}: {PARTITION} is of 2 layers and {shares.features} features, the "
            f"weights of {layers} and {len(draft.b_enc)}; name an undamaged file"
        )
    a, b = shares.sizes
    forbidden = (slice(a, a + b), slice(0, a))
    for what, weights in (("encoder", draft.W_enc), ("decoder", draft.W_dec)):
        for layer, W_FD in enumerate(weights):
            refuse_nonzero(found, f"{what}.weight[{layer}]", W_FD[forbidden[layer]])
    order = ours_of_theirs(a, b, shares.features)
    draft.W_enc = [W_FD[order] for W_FD in draft.W_enc]
    draft.W_dec = [W_FD[order] for W_FD in draft.W_dec]
    draft.b_enc = draft.b_enc[order]
    draft.exclusive = (a, b)
    draft.details["partition"] = dict(config)
    draft.notes.append(
        f"partition: {a} of the first model, {b} of the second, {shares.features - a - b} shared; "
        "features are in the order first, shared, second"
    )


def refuse_nonzero(found: Found, name: str, forbidden: Tensor) -> None:
    """Raises DictionaryError with the violation where a model has weights it must not have."""
    worst = float(forbidden.abs().max()) if forbidden.numel() else 0.0
    if worst > 0:
        raise DictionaryError(
            f"{found.file}: {name} has {int((forbidden != 0).sum()):,} weights other than 0 on "
            f"features of the other model alone (largest {worst:.3g}): the partition was violated; "
            "zero them in the file first"
        )


def _shares(found: Found, config: Any) -> Shares:
    try:
        shares = Shares(
            int(config["dict_size"]),
            float(config["model_a_exclusive_pct"]),
            float(config["model_b_exclusive_pct"]),
        )
    except (KeyError, TypeError, ValueError):
        raise DictionaryError(
            f"{found.file}: {PARTITION} is {config!r}, without dict_size, model_a_exclusive_pct "
            "and model_b_exclusive_pct; name an undamaged file"
        ) from None
    if not (shares.a >= 0 and shares.b >= 0 and sum(shares.sizes) <= shares.features):
        raise DictionaryError(
            f"{found.file}: {PARTITION} gives {shares.a} and {shares.b} of {shares.features} "
            "features to one model alone; name an undamaged file"
        )
    return shares


def ours_of_theirs(a: int, b: int, features: int) -> Tensor:
    """Their number of each of our features: [A | shared | B] of [A | B | shared]."""
    numbers = torch.arange(features)
    return torch.cat([numbers[:a], numbers[a + b :], numbers[a : a + b]])


PLAIN_OPTIONAL = frozenset({ID, *KEYS})
TOPK_SHAPES = {**PLAIN, "k": ""}
FORMATS = tuple(
    Format(
        LIBRARY,
        f"{DEDICATED if partitioned else ''}{kind}",
        shapes,
        read_crosscoder,
        PLAIN_OPTIONAL | more,
        partitioned=partitioned,
    )
    for partitioned in (False, True)
    for kind, shapes, more in (
        ("CrossCoder", PLAIN, frozenset[str]()),
        ("BatchTopKCrossCoder", TOPK_SHAPES, frozenset({"threshold"})),
    )
)
