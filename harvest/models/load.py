"""Loads a model's weights and tokenizer as a ModelSpec says: hub or folder, device, adapter.

Weights come from safetensors, or from a .bin file that torch reads without running its code; an
adapter only from safetensors. Code of a repository runs only with trust_remote_code.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch.nn import Module

from harvest.models.local import local_folder
from harvest.models.probe import text_config
from harvest.models.quiet import quiet
from harvest.reason import first_line, read_errors
from pipeline.errors import ModelError
from pipeline.specs import ModelSpec

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
OF_ATTENTION = re.compile(r"(?i)attn_implementation|attention implementation|fl(ash|ex) ?attention")


def load_model(name: str, spec: ModelSpec) -> Module:
    """The model in evaluation mode, on its device or devices, with its adapter.

    Raises ModelError if it cannot be loaded, lacks weights of a layer, or needs a missing package.
    """
    from safetensors import SafetensorError

    device = None if spec.device_map else _device(name, spec)
    if spec.device_map and not find_spec("accelerate"):
        raise ModelError(
            f"models.{name}.device_map: {spec.device_map!r} needs the package accelerate; "
            "pip install accelerate, or set device instead"
        )
    auto_class = model_class(name, spec, load_config(name, spec))
    attention = {"attn_implementation": spec.attention} if spec.attention else {}
    placed = {"device_map": spec.device_map} if spec.device_map else {}
    try:
        with quiet():
            module, report = auto_class.from_pretrained(
                str(local_folder(name, spec) or spec.path),
                dtype=getattr(torch, spec.dtype),
                revision=spec.revision,
                trust_remote_code=spec.trust_remote_code,
                output_loading_info=True,
                **attention,
                **placed,
            )
        module = module if device is None else module.to(device)
    except read_errors(KeyError, RuntimeError, ImportError, SafetensorError) as error:
        raise ModelError(f"models.{name}.{_blame(spec, error)}") from error
    _refuse_random_layers(name, spec, report["missing_keys"])
    if spec.adapter is not None:
        _put_adapter(name, spec, module)
    text_config(module).use_cache = False  # keys and values would only be kept for a next token
    return module.eval()


def load_config(name: str, spec: ModelSpec) -> Any:
    """The model's transformers config. Raises ModelError."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(
            str(local_folder(name, spec) or spec.path),
            revision=spec.revision,
            trust_remote_code=spec.trust_remote_code,
        )
    except read_errors(KeyError) as error:
        raise ModelError(
            f"models.{name}.path: {spec.path}: its config cannot be loaded ({first_line(error)})"
        ) from error


def load_tokenizer(name: str, spec: ModelSpec) -> Any:
    """The model's tokenizer. Raises ModelError."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(
            str(local_folder(name, spec) or spec.path),
            revision=spec.revision,
            trust_remote_code=spec.trust_remote_code,
        )
    except read_errors(KeyError, TypeError, AttributeError, ImportError) as error:
        raise ModelError(
            f"models.{name}.path: {spec.path}: its tokenizer cannot be loaded ({first_line(error)})"
        ) from error


def model_class(name: str, spec: ModelSpec, config: Any) -> Any:
    """The transformers Auto class for a config: causal models with their head, encoders without.

    Raises ModelError for an encoder-decoder.
    """
    import transformers
    from transformers.models.auto import modeling_auto as auto

    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(
            f"models.{name}.path: {spec.path}: an encoder-decoder has two texts; "
            "name a causal language model or an encoder"
        )
    kind, remote = type(config), getattr(config, "auto_map", None) or {}
    masked = kind in auto.MODEL_FOR_MASKED_LM_MAPPING and not getattr(config, "is_decoder", False)
    causal = kind in auto.MODEL_FOR_CAUSAL_LM_MAPPING or "AutoModelForCausalLM" in remote
    if causal and not masked:
        return transformers.AutoModelForCausalLM
    if kind in auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        return transformers.AutoModelForImageTextToText
    return transformers.AutoModel


def _blame(spec: ModelSpec, error: Exception) -> str:
    """The key that is to blame for a failed load, its value and the reason."""
    reason = first_line(error)
    if spec.attention and OF_ATTENTION.search(reason):
        short = reason.split(". ")[0].rstrip(".")
        return (
            f"attention: {spec.attention!r} cannot be used with {spec.path} ({short}); "
            "usual values are eager, sdpa and flash_attention_2"
        )
    return f"path: {spec.path}: cannot be loaded as a language model ({reason})"


def _device(name: str, spec: ModelSpec) -> torch.device:
    if spec.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(spec.device)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        usable = "auto, cpu or cuda" if torch.cuda.is_available() else "auto or cpu"
        raise ModelError(
            f"models.{name}.device: {spec.device!r} cannot be used here "
            f"({first_line(error)}); try {usable}"
        ) from None
    return device


def _refuse_random_layers(name: str, spec: ModelSpec, missing: Any) -> None:
    """transformers fills in weights that are not there; heads and poolers are never read here."""
    layers = sorted(key for key in missing if re.search(r"\.\d+\.", key))
    if layers:
        raise ModelError(
            f"models.{name}.path: {spec.path}: its files lack {len(layers)} weights of its layers, "
            f"such as {layers[0]}; name the folder of a complete model"
        )


def _put_adapter(name: str, spec: ModelSpec, module: Any) -> None:
    """Puts a PEFT adapter into the model's own modules: their paths stay as they were."""
    where = f"models.{name}.adapter: {spec.adapter}"
    if not find_spec("peft"):
        raise ModelError(f"{where}: needs the package peft; pip install crossdiff[peft]")
    config, weights = _adapter_files(where, str(spec.adapter))
    from peft import PeftConfig
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        report = module.load_adapter(
            peft_config=PeftConfig.from_pretrained(str(config.parent)),
            adapter_state_dict=load_file(weights),
        )
    except read_errors(KeyError, RuntimeError, TypeError, SafetensorError) as error:
        raise ModelError(f"{where}: cannot be put on {spec.path} ({first_line(error)})") from error
    strange = sorted({*report.unexpected_keys, *report.missing_keys})
    if strange:
        raise ModelError(f"{where}: does not belong to {spec.path} (weight {strange[0]})")


def _adapter_files(where: str, adapter: str) -> list[Path]:
    """An adapter's config and weights, from a folder or from the hub."""
    from huggingface_hub import hf_hub_download

    folder = Path(adapter).expanduser()
    try:
        if folder.is_dir():
            files = [folder / file for file in ADAPTER_FILES]
            absent = next((file.name for file in files if not file.exists()), None)
            if absent:
                raise FileNotFoundError(f"no {absent}")
            return files
        return [Path(hf_hub_download(adapter, file)) for file in ADAPTER_FILES]
    except read_errors() as error:
        raise ModelError(
            f"{where}: neither a folder nor a hub name with {' and '.join(ADAPTER_FILES)} "
            f"({first_line(error)}); an adapter in a pickled .bin file is not read"
        ) from error
