"""Where a name's weights come from: this project's folder, a foreign file, the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pipeline.errors import DictionaryError
from train.dictionary.artifact import CONFIG, FORMAT, WEIGHTS, load_dictionary, read_description
from train.dictionary.crosscoder import Crosscoder
from train.hub import download, is_repo_id, read_figures
from train.names.dictionary import Dictionary
from train.names.table import name_of

ARCHITECTURE = {
    "format",
    "version",
    "hookpoints",
    "partition",
    "code_normalization",
    "dtype",
    "activation",
    "center",
    "means",
    "residual",
}
D = TypeVar("D", bound=Dictionary)


def load(
    wanted: type[D],
    path_or_repo: str | Path,
    revision: str | None,
    subfolder: str | None,
    token: str | None,
) -> tuple[Crosscoder, dict[str, Any], type[D]]:
    """Core, notes and class of what is there. Raises DictionaryError."""
    path = Path(path_or_repo).expanduser()
    if not path.exists():
        if not isinstance(path_or_repo, str) or not is_repo_id(path_or_repo):
            raise DictionaryError(
                f"{path_or_repo}: no such file or folder, and no Hub repository (owner/name)"
            )
        path = download(path_or_repo, revision=revision, subfolder=subfolder, token=token).folder
    elif subfolder is not None:
        path = path / subfolder
    core, notes = read(path)
    return core, notes, _class_for(wanted, name_of(core, notes), path_or_repo)


def read(path: Path) -> tuple[Crosscoder, dict[str, Any]]:
    """A dictionary of this project or of another, and what its config.json says besides."""
    folder = path.parent if path.name in (WEIGHTS, CONFIG) else path
    if _is_ours(folder / CONFIG):
        description = read_description(folder)
        notes = {key: value for key, value in description.items() if key not in ARCHITECTURE}
        figures = read_figures(folder)
        return load_dictionary(folder), {**notes, **({"figures": figures} if figures else {})}
    from train.formats.read import import_dictionary

    imported = import_dictionary(path)
    return imported.dictionary, imported.provenance


def _is_ours(file: Path) -> bool:
    """Whether config.json has this project's mark; damaged ones count, so that they are named."""
    return file.is_file() and FORMAT.encode() in file.read_bytes()


def _class_for(wanted: type[D], name: str | None, place: str | Path) -> type[D]:
    """The class of this name if it is of the kind asked for."""
    from train.names import classes

    found: type[Dictionary] = getattr(classes, name) if name else Dictionary
    if issubclass(found, wanted):
        return found
    known = name or "dictionary without a name of its own"
    raise DictionaryError(
        f"{place}: holds a {known}, not a {wanted.__name__}; "
        f"use {found.__name__}.from_pretrained or Dictionary.from_pretrained"
    )
