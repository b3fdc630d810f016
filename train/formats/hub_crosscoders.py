"""Other crosscoders on the Hub: Kissane et al. (Gemma-2-2B), and per-row TopK DFCs with masks."""

from __future__ import annotations

import torch

from pipeline.errors import DictionaryError
from train.dictionary.activation import ReLU, TopK
from train.formats.dl_crosscoder import refuse_nonzero
from train.formats.dl_topk import file_k
from train.formats.draft import Draft, sizes
from train.formats.files import Found
from train.formats.format import Format

KISSANE = {"W_enc": "LdF", "W_dec": "FLd", "b_enc": "F", "b_dec": "Ld"}
MASKED = {**KISSANE, "enc_mask": "LF", "dec_mask": "FL"}


def read_kissane(found: Found) -> Draft:
    """f = relu(sum_l x_l W_enc[l] + b_enc), x_hat_l = f W_dec[:, l] + b_dec[l]."""
    sizes(found, "crosscoder", KISSANE)
    t = found.tensors
    return Draft(
        kind="crosscoder",
        W_enc=[W_dF.T for W_dF in t["W_enc"]],
        W_dec=list(t["W_dec"].unbind(dim=1)),
        b_enc=t["b_enc"],
        b_dec=list(t["b_dec"]),
        activation=ReLU(),
        normalization="crosscoder",
    )


def read_masked(found: Found) -> Draft:
    """The same with the k largest codes of every row, and masks in place of a partition."""
    layers = sizes(found, "masked DFC", MASKED)["L"]
    if layers != 2:
        raise DictionaryError(f"{found.file}: masks of {layers} models; only two can be imported")
    draft = read_kissane(found)
    enc_LF = found.tensors["enc_mask"] != 0
    dec_LF = (found.tensors["dec_mask"] != 0).T
    differ = int((enc_LF != dec_LF).any(dim=0).sum())
    unseen = int((~enc_LF).all(dim=0).sum())
    if differ or unseen:
        raise DictionaryError(
            f"{found.file}: {differ} features are read from other models than they are written to "
            f"and {unseen} belong to none; a partition has no place for them"
        )
    for number, name in enumerate(("first", "second")):
        hidden = ~enc_LF[number]
        for what, weights in (("W_enc", draft.W_enc), ("W_dec", draft.W_dec)):
            refuse_nonzero(found, f"{what} of the {name} model", weights[number][hidden])
    own_a, own_b = enc_LF[0] & ~enc_LF[1], enc_LF[1] & ~enc_LF[0]
    _check_counts(found, int(own_a.sum()), int(own_b.sum()))
    order = torch.cat([m.nonzero().squeeze(1) for m in (own_a, enc_LF.all(dim=0), own_b)])
    draft.W_enc = [W_FD[order] for W_FD in draft.W_enc]
    draft.W_dec = [W_FD[order] for W_FD in draft.W_dec]
    draft.b_enc = draft.b_enc[order]
    draft.kind, draft.normalization = "masked DFC", "none"
    draft.exclusive = (int(own_a.sum()), int(own_b.sum()))
    k = file_k(found, draft.kind)
    draft.activation = TopK(k)
    draft.details["k"] = k
    if not torch.equal(order, torch.arange(len(order))):
        draft.kept["feature_order"] = order
        draft.notes.append("features are in the order first, shared, second model")
    return draft


def _check_counts(found: Found, a: int, b: int) -> None:
    for name, have in (("n_a", a), ("n_b", b)):
        want = found.setting(name)
        if want is not None and want != have:
            raise DictionaryError(
                f"{found.file}: {name} is {want}, the masks give {have}; name an undamaged file"
            )


FORMATS = (
    Format("hub", "crosscoder", KISSANE, read_kissane),
    Format("hub", "masked DFC", MASKED, read_masked),
)
