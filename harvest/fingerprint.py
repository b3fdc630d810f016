"""What a store was made from: hashes of weights, tokenizers and text, so that a resumed harvest
never mixes two versions under one name.

Local files are hashed whole, at 1 GB/s or so; a hub model or dataset by its commit.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from harvest.corpus.files import local_files
from harvest.corpus.reader import corpus_sources
from harvest.corpus.source import Source
from harvest.models.local import local_folder
from harvest.reason import first_line, read_errors
from pipeline.errors import CorpusError, ModelError
from pipeline.specs import CorpusSpec, ModelSpec

MODEL_FILES = (
    # configuration, tokenizer and its chat template
    *("*.json", "vocab.txt", "merges.txt", "*.model", "*.jinja"),
    *("*.safetensors", "*.bin", "*.py"),
)


def fingerprints(models: dict[str, ModelSpec], corpus: CorpusSpec) -> dict[str, str]:
    """One fingerprint per model, as models.<name>, and of the corpus: as corpus if it is a plain
    one, else one per source, as corpus.<name>.

    Raises ModelError or CorpusError for what cannot be read.
    """
    found = {f"models.{name}": _model(name, models) for name in models}
    for source in corpus_sources(corpus):
        found[f"corpus.{source.name}" if corpus.sources else "corpus"] = _source(source)
    return found


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


def _model(name: str, models: dict[str, ModelSpec]) -> str:
    """Of the weights and tokenizer, and of the adapter and the chat template if there are any."""
    spec = models[name]
    parts = [_weights(name, spec)]
    if spec.adapter is not None:
        parts.append(f"adapter {_adapter(name, spec.adapter)}")
    if spec.chat_template is not None and spec.chat_template not in models:
        parts.append(f"chat template {_template(name, spec.chat_template)}")
    return ", ".join(parts)


def _weights(name: str, spec: ModelSpec) -> str:
    folder = local_folder(name, spec)
    if folder is not None:
        return _hash_model(folder)
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


def _adapter(name: str, adapter: str) -> str:
    folder = Path(adapter).expanduser()
    if folder.is_dir():
        return _hash_model(folder)
    from huggingface_hub import HfApi

    try:
        return f"hub:{HfApi().model_info(adapter).sha}"
    except read_errors() as error:
        raise ModelError(
            f"models.{name}.adapter: {adapter}: neither a local folder nor an adapter that can be "
            f"reached on the hub ({first_line(error)})"
        ) from error


def _template(name: str, template: str) -> str:
    file = Path(template).expanduser()
    try:
        return hash_files([file], file.parent)
    except OSError as error:
        raise ModelError(
            f"models.{name}.chat_template: {template}: cannot be read ({error.strerror})"
        ) from None


def _hash_model(folder: Path) -> str:
    return hash_files([file for glob in MODEL_FILES for file in folder.glob(glob)], folder)


def _source(source: Source) -> str:
    spec = source.spec
    if spec.path == "-":
        return "stdin"
    local = local_files(spec, source.key)
    if local is not None:
        return hash_files(list(local.files), local.root)
    folder = Path(str(spec.path)).expanduser()
    if folder.is_dir():
        return hash_files([file for file in folder.rglob("*") if file.is_file()], folder)
    from huggingface_hub import HfApi

    try:
        return f"hub:{HfApi().dataset_info(str(spec.path), revision=spec.revision).sha}"
    except read_errors() as error:
        raise CorpusError(
            f"{source.key}.path: {spec.path}: neither a local file nor a dataset that can be "
            f"reached on the hub ({first_line(error)})"
        ) from error
