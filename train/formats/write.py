"""A dictionary as a folder of another library: dictionary_learning (and its forks), or SAELens."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import safetensors.torch
import torch
from torch import Tensor

from pipeline.errors import DictionaryError
from store.files import fsync_folder, make_folder, write_atomic
from train.dictionary.crosscoder import Crosscoder
from train.formats import sae_lens
from train.formats.dl_crosscoder import NORMALIZATIONS
from train.formats.dl_crosscoder_write import write_crosscoder
from train.formats.dl_single import single_state
from train.formats.files import CONFIGS, PARTITION, WEIGHTS
from train.formats.read import OURS
from train.formats.restore import is_own_normaliser, restored, source_k
from train.formats.weights import plain_weights

FormatName = Literal["dictionary_learning", "sae_lens"]


@dataclass(frozen=True)
class Exported:
    """What was written: the folder, its files, the class there, and what the reader must know."""

    folder: Path
    files: list[str]
    kind: str
    notes: list[str]


def export_dictionary(
    dictionary: Crosscoder,
    out: Path,
    format: FormatName,
    *,
    source: dict[str, Any] | None = None,
    k: int | None = None,
    as_safetensors: bool = False,
) -> Exported:
    """Writes weights, then the configuration, into the folder `out`.

    source: what the import said of it, for a way back to the bit; k: active features per row, where
    the dictionary does not hold it (BatchTopK). as_safetensors: model.safetensors (a Hub folder) in
    place of .pt; SAELens always has it. Raises DictionaryError for what the format cannot hold.
    """
    if format not in get_args(FormatName):
        known = ", ".join(get_args(FormatName))
        raise DictionaryError(f"format {format!r}: known are {known}")
    if dictionary.prediction is not None:
        raise DictionaryError(
            f"export to {format}: a dictionary of residuals first takes off what the other model "
            "predicts, which is not known there; share it with `train push`"
        )
    if format == "sae_lens":
        return _sae_lens(dictionary, out, source or {})
    if len(dictionary.hookpoints) == 1 and "CrossCoder" not in (source or {}).get("kind", ""):
        return _single(dictionary, out, source or {}, k, as_safetensors)
    return _crosscoder(dictionary, out, source or {}, k, as_safetensors)


def _sae_lens(dictionary: Crosscoder, out: Path, source: dict[str, Any]) -> Exported:
    weights = plain_weights(dictionary)
    transcoder = dictionary.inputs != dictionary.outputs
    config, tensors, notes = sae_lens.write_sae_lens(weights, transcoder, source)
    if source.get("library") == sae_lens.LIBRARY:
        tensors = restored(tensors, source, sae_lens.LIBRARY, config["architecture"])
    _check_out(out, sae_lens.WEIGHTS)
    write_atomic(out / sae_lens.WEIGHTS, [safetensors.torch.save(_contiguous(tensors))])
    write_atomic(out / sae_lens.CONFIG, [_json(config)])
    return Exported(out, [sae_lens.WEIGHTS, sae_lens.CONFIG], config["architecture"], notes)


def _single(
    dictionary: Crosscoder, out: Path, source: dict[str, Any], k: int | None, as_safetensors: bool
) -> Exported:
    if not dictionary.inputs == dictionary.outputs:
        raise DictionaryError("export to dictionary_learning: it has no transcoders; use sae_lens")
    own = is_own_normaliser(dictionary, source, 1)
    weights = plain_weights(dictionary, fold=not own)
    k = k or source_k(source, dictionary)
    kind, state, weights, settings = single_state(weights, k, source)
    state = restored(state, source, "dictionary_learning", kind, own)
    trainer = {
        "dict_class": kind,
        "activation_dim": dictionary.hookpoints[0].width,
        "dict_size": dictionary.partition.features,
        "submodule_name": dictionary.hookpoints[0].name,
        **settings,
    }
    notes = list(weights.notes)
    if settings.get("apply_b_dec_to_input"):
        notes.append("JumpReluAutoEncoder: set ae.apply_b_dec_to_input = True after loading it")
    files = _write(out, "ae.pt", state, None, {"trainer": trainer}, as_safetensors)
    return Exported(out, files, kind, notes)


def _crosscoder(
    dictionary: Crosscoder, out: Path, source: dict[str, Any], k: int | None, as_safetensors: bool
) -> Exported:
    k = k or source_k(source, dictionary)
    kind, state, partition = write_crosscoder(dictionary, k)
    own = is_own_normaliser(dictionary, source, len(dictionary.hookpoints))
    state = restored(state, source, "dictionary_learning", kind, own)
    before = source.get("partition")
    if partition and isinstance(before, dict) and _same_sizes(before, partition):
        partition = before
    names = {name: number for number, name in NORMALIZATIONS.items()}
    config = {
        "activation_dim": dictionary.hookpoints[0].width,
        "dict_size": dictionary.partition.features,
        "num_layers": len(dictionary.hookpoints),
        "code_normalization": dictionary.normalization.upper(),
        "code_normalization_id": names[dictionary.normalization],
        **({"k": k} if "BatchTopK" in kind else {}),
        **{key: value for key, value in (partition or {}).items() if key != "dict_size"},
        "trainer": {"dict_class": kind},
        "hookpoints": [hookpoint.name for hookpoint in dictionary.hookpoints],
    }
    notes = []
    if partition:
        notes.append("features are in the order first model, second model, shared there")
        config[PARTITION] = partition
    files = _write(out, "model_final.pt", state, partition, config, as_safetensors)
    return Exported(out, files, kind, notes)


def _same_sizes(one: dict[str, Any], other: dict[str, Any]) -> bool:
    from train.formats.dl_crosscoder import Shares

    sizes = [
        Shares(c["dict_size"], c["model_a_exclusive_pct"], c["model_b_exclusive_pct"])
        for c in (one, other)
    ]
    return sizes[0].features == sizes[1].features and sizes[0].sizes == sizes[1].sizes


def _write(
    out: Path,
    name: str,
    state: dict[str, Tensor],
    partition: dict[str, Any] | None,
    config: dict[str, Any],
    as_safetensors: bool,
) -> list[str]:
    name = "model.safetensors" if as_safetensors else name
    _check_out(out, name)
    state = _contiguous(state)
    if as_safetensors:
        metadata = {"format": "pt"} | ({PARTITION: json.dumps(partition)} if partition else {})
        write_atomic(out / name, [safetensors.torch.save(state, metadata)])
    else:
        _save_pt(out / name, {**state, **({PARTITION: partition} if partition else {})})
    write_atomic(out / "config.json", [_json(config)])
    return [name, "config.json"]


def _save_pt(file: Path, state: dict[str, Any]) -> None:
    """Tensors and plain values only, so that weights_only reads it; renamed when complete."""
    make_folder(file.parent)
    temporary = file.with_name(file.name + ".tmp")
    with open(temporary, "wb") as opened:
        torch.save(state, opened)
        opened.flush()
        os.fsync(opened.fileno())
    os.replace(temporary, file)
    fsync_folder(file.parent)


def _check_out(out: Path, name: str) -> None:
    """Raises DictionaryError for a folder that holds another dictionary."""
    if out.exists() and not out.is_dir():
        raise DictionaryError(f"{out}: is a file; name a folder")
    others = [other for other in WEIGHTS if other != name and (out / other).exists()]
    if others:
        raise DictionaryError(f"{out}: holds {others[0]} already; name an empty folder")
    for config in CONFIGS:
        if (out / config).is_file() and OURS in (out / config).read_text(errors="replace"):
            raise DictionaryError(f"{out}: holds a dictionary of this project; name another folder")


def _contiguous(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors that own their memory: torch.save writes the whole storage of a view."""
    owned = {}
    for key, value in state.items():
        value = value.detach().cpu().contiguous()
        alone = value.untyped_storage().nbytes() == value.numel() * value.element_size()
        owned[key] = value if alone else value.clone()
    return owned


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, indent=1).encode()
