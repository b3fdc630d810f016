"""What a store was made from: hashes of weights, tokenizers and text, so that a resumed harvest
never mixes two versions under one name.

Local files are hashed whole, at 1 GB/s or so; a hub model or dataset by its commit.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from harvest.reason import first_line, read_errors
from harvest.sources import local_folder
from pipeline.config import CorpusSpec, ModelSpec
from pipeline.errors import CorpusError, ModelError

MODEL_FILES = (
    *("*.json", "vocab.txt", "merges.txt", "*.model"),  # configuration and tokenizer
    *("*.safetensors", "*.bin", "*.py"),
)


def fingerprints(models: dict[str, ModelSpec], corpus: CorpusSpec) -> dict[str, str]:
    """One fingerprint per model, as models.<name>, and one of the corpus."""
    found = {f"models.{name}": _model(name, spec) for name, spec in models.items()}
    return {**found, "corpus": _corpus(corpus)}


def hash_files(files: list[Path], root: Path) -> str:
    """Hash of names (below root) and contents of some files, in the order of their names."""
    total = hashlib.blake2b(digest_size=16)
    for file in sorted(files):
        with file.open("rb") as stream:
            content = hashlib.file_digest(stream, _blake2b)
        total.update(f"{file.relative_to(root).as_posix()} {content.hexdigest()}\n".encode())
    return f"blake2b:{total.hexdigest()}"


def _blake2b() -> hashlib.blake2b:
    return hashlib.blake2b(digest_size=32)


def _model(name: str, spec: ModelSpec) -> str:
    folder = local_folder(name, spec)
    if folder is not None:
        return hash_files([file for glob in MODEL_FILES for file in folder.glob(glob)], folder)
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(
            spec.path, revision=spec.revision, trust_remote_code=spec.trust_remote_code
        )
    except read_errors() as error:
        raise ModelError(
            f"models.{name}.path: {spec.path}: neither a local folder nor a model that can be "
            f"reached on the hub ({first_line(error)})"
        ) from error
    return f"hub:{config._commit_hash}"


def _corpus(spec: CorpusSpec) -> str:
    path = Path(spec.path)
    if path.is_file():
        return hash_files([path], path.parent)
    if path.is_dir():
        return hash_files([file for file in path.rglob("*") if file.is_file()], path)
    from huggingface_hub import HfApi

    try:
        return f"hub:{HfApi().dataset_info(spec.path, revision=spec.revision).sha}"
    except read_errors() as error:
        raise CorpusError(
            f"corpus.path: {spec.path}: neither a local file nor a dataset that can be reached "
            f"on the hub ({first_line(error)})"
        ) from error
