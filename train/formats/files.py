"""Foreign files: which file of a folder holds the weights, and its tensors; nothing is unpickled.

Layouts: a file; `config.json` + `checkpoint_{step}.pt` + `model_final.pt`; `trainer_{i}/{ae.pt,
config.json, checkpoints/ae_{step}.pt}`; a Hub folder `model.safetensors` + `config.json`; the
folders of SAELens and sparsify.
"""

from __future__ import annotations

import json
import pickle
import re
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from pipeline.errors import DictionaryError

WEIGHTS = (
    "sae_weights.safetensors",
    "sae.safetensors",
    "model.safetensors",
    "model_final.pt",
    "ae.pt",
    "cc_weights.pt",
)
CONFIGS = ("cfg.json", "config.json")
STEPPED = ("checkpoint_*.pt", "ae_*.pt")
SUFFIXES = (".pt", ".pth", ".bin", ".safetensors")
COMPILED = "_orig_mod."
PARTITION = "_partition_config"
SHARES = ("model_a_exclusive_pct", "model_b_exclusive_pct")


@dataclass(frozen=True)
class Found:
    """A foreign file as it was read.

    tensors: by key, on the CPU, without `_orig_mod.`; other: what is not a tensor; config: the
    JSON file beside it, {} if there is none.
    """

    file: Path
    tensors: dict[str, Tensor]
    other: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)

    def setting(self, name: str) -> Any:
        """A key of the configuration, on its first level or in `trainer`; None without it."""
        trainer = self.config.get("trainer")
        nested = trainer.get(name) if isinstance(trainer, dict) else None
        return self.config.get(name, nested)


def find(path: Path) -> Found:
    """Reads the weights at a folder or file. Raises DictionaryError naming the file."""
    file = weights_file(path)
    tensors, other = _read_safetensors(file) if _is_safetensors(file) else _read_pt(file)
    if not tensors:
        raise DictionaryError(f"{file}: holds no tensors; name a file of dictionary weights")
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and name.rpartition(".")[2] in ("weight", "W_enc", "W_dec"):
            bad = tensor.numel() - int(tensor.isfinite().sum())
            if bad:
                raise DictionaryError(
                    f"{file}: {name} holds {bad:,} values that are not finite; "
                    "take an earlier checkpoint"
                )
    config = _read_config(file)
    return _with_partition(Found(file, tensors, other, config))


def _with_partition(found: Found) -> Found:
    """The same with a partition that only the configuration holds."""
    if PARTITION in found.other:
        return found
    shares = {key: found.setting(key) for key in SHARES}
    config = found.setting(PARTITION)
    if config is None and all(isinstance(share, float) for share in shares.values()):
        config = (
            {"dict_size": found.setting("dict_size"), **shares} if any(shares.values()) else None
        )
    return found if config is None else replace(found, other={**found.other, PARTITION: config})


def weights_file(path: Path) -> Path:
    """The file that holds the weights of a folder or file. Raises DictionaryError."""
    if path.is_file():
        return path
    if not path.is_dir():
        raise DictionaryError(f"{path}: no such file or folder")
    for name in WEIGHTS:
        if (path / name).is_file():
            return path / name
    stepped = [file for pattern in STEPPED for file in path.glob(pattern)]
    if stepped:
        return max(stepped, key=_step)
    lone = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
    if len(lone) == 1:
        return lone[0]
    if lone:
        names = ", ".join(file.name for file in lone[:8])
        raise DictionaryError(f"{path}: holds several weight files ({names}); name one of them")
    below = sorted({f.parent for name in WEIGHTS for f in path.glob(f"*/{name}")})
    if below:
        names = ", ".join(folder.name for folder in below[:8])
        raise DictionaryError(f"{path}: holds dictionaries in folders ({names}); name one of them")
    raise DictionaryError(f"{path}: holds no weight file (looked for {', '.join(WEIGHTS)}, *.pt)")


def _step(file: Path) -> int:
    digits = re.findall(r"\d+", file.stem)
    return int(digits[-1]) if digits else -1


def _is_safetensors(file: Path) -> bool:
    return file.suffix == ".safetensors"


def _read_safetensors(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safetensors.safe_open(file, framework="pt", device="cpu") as opened:
            tensors = {_plain_key(key): opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
            metadata = opened.metadata() or {}
            other = {PARTITION: json.loads(metadata[PARTITION])} if PARTITION in metadata else {}
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise DictionaryError(f"{file}: cannot be read as safetensors ({error})") from None
    return tensors, other


def _read_pt(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with warnings.catch_warnings():  # of old protocols, before the error that says it all
            warnings.simplefilter("ignore")
            value = torch.load(file, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        raise DictionaryError(f"{file}: refused: {_refused(error)}") from None
    except (OSError, EOFError, RuntimeError, ValueError, KeyError) as error:
        first = str(error).strip().split("\n")[0]
        raise DictionaryError(f"{file}: cannot be read as a .pt file ({first})") from None
    if isinstance(value, dict) and isinstance(value.get("state_dict"), dict):
        value = value["state_dict"]
    if not isinstance(value, dict):
        raise DictionaryError(
            f"{file}: holds a {type(value).__name__}, not a state dict; save ae.state_dict()"
        )
    tensors = {_plain_key(k): v.detach() for k, v in value.items() if isinstance(v, Tensor)}
    other = {_plain_key(k): v for k, v in value.items() if not isinstance(v, Tensor)}
    return tensors, other


def _refused(error: Exception) -> str:
    named = re.search(r"GLOBAL ([\w.]+)", str(error))
    if named is None:
        return "it is not a plain file of tensors; save ae.state_dict() with torch.save"
    return (
        f"its pickle calls {named[1]}, and only tensors are read (nothing was run); "
        "save ae.state_dict() in its own environment, or as safetensors"
    )


def _plain_key(key: Any) -> str:
    return str(key).replace(COMPILED, "")


def _read_config(file: Path) -> dict[str, Any]:
    """The JSON beside a weight file, or above it for trainer_{i}/checkpoints/ae_{step}.pt."""
    folders = [file.parent, file.parent.parent] if file.parent.name == "checkpoints" else []
    for folder in folders or [file.parent]:
        for name in CONFIGS:
            if (folder / name).is_file():
                try:
                    value = json.loads((folder / name).read_bytes())
                except (OSError, ValueError) as error:
                    raise DictionaryError(
                        f"{folder / name}: cannot be read as JSON ({error})"
                    ) from None
                return value if isinstance(value, dict) else {}
    return {}
