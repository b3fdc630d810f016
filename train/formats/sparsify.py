"""sparsify (eai-sparsify), import only: a folder per hookpoint, `cfg.json` + `sae.safetensors`."""

from __future__ import annotations

from pipeline.errors import DictionaryError
from train.dictionary.activation import TopK
from train.formats.dl_topk import file_k
from train.formats.draft import Draft, sizes
from train.formats.files import Found
from train.formats.format import Format

SHAPES = {"encoder.weight": "Fd", "encoder.bias": "F", "W_dec": "Fo", "b_dec": "o"}


def read_sparsify(found: Found) -> Draft:
    """f = the k largest of relu(W_e (x - b_dec) + b_e) by row; a transcoder does not subtract."""
    sizes(found, "sparsify coder", SHAPES)
    t = found.tensors
    activation = found.setting("activation") or "topk"
    if activation != "topk":
        raise DictionaryError(f"{found.file}: activation {activation!r}; only topk can be imported")
    if "W_skip" in t or found.setting("skip_connection"):
        raise DictionaryError(
            f"{found.file}: has a skip connection, which no dictionary here has; "
            "import one trained without it"
        )
    transcode = bool(found.setting("transcode"))
    k = file_k(found, "sparsify coder")
    return Draft(
        kind="sparsify transcoder" if transcode else "sparsify coder",
        W_enc=[t["encoder.weight"]],
        W_dec=[t["W_dec"]],
        b_enc=t["encoder.bias"],
        b_dec=[t["b_dec"]],
        activation=TopK(k),
        center=not transcode,
        transcoder=transcode,
        details={"k": k},
    )


FORMATS = (Format("sparsify", "sparsify coder", SHAPES, read_sparsify, frozenset({"W_skip"})),)
