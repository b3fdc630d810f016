"""Which files on this machine a source of text means, and how they are to be read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.errors import CorpusError
from pipeline.specs import SourceSpec

FileKind = Literal["parquet", "jsonl", "text", "lines"]
KINDS: dict[str, FileKind] = {
    ".parquet": "parquet",
    ".jsonl": "jsonl",
    ".json": "jsonl",
    ".txt": "text",
}
SAVED_DATASET = ("dataset_dict.json", "state.json")  # what save_to_disk leaves in a folder


@dataclass(frozen=True)
class LocalFiles:
    """Files of one kind in the order of reading; `root` is the folder that they are named from."""

    kind: FileKind
    files: tuple[Path, ...]
    root: Path


def local_files(source: SourceSpec, key: str) -> LocalFiles | None:
    """The files of a source, or None: standard input, or a dataset for `datasets` to find.

    A folder means the files that lie in it; with a `format`, those in its subfolders too. `key`
    is the source's place in the configuration. Raises CorpusError, and touches no network.
    """
    assert source.path is not None
    path = Path(source.path).expanduser()
    if source.path == "-":
        return None
    if path.is_file():
        return LocalFiles(_kind(source, key, path), (path,), path.parent)
    if path.is_dir():
        return _folder(source, key, path)
    if path.suffix in KINDS or path.is_absolute() or source.format != "auto":
        raise CorpusError(f"{key}.path: {source.path}: no such file")
    return None


def _kind(source: SourceSpec, key: str, path: Path) -> FileKind:
    if source.format != "auto":
        return source.format
    if path.suffix not in KINDS:
        raise CorpusError(
            f"{key}.path: {source.path}: not a kind of file that is read here; give a "
            f"{', '.join(KINDS)} file, or its {key}.format"
        )
    return KINDS[path.suffix]


def _folder(source: SourceSpec, key: str, folder: Path) -> LocalFiles | None:
    if source.format != "auto":
        wanted = "text" if source.format == "lines" else source.format
        endings = [ending for ending, kind in KINDS.items() if kind == wanted]
        files = _files(folder.rglob("*"), folder, endings)
        if not files:
            raise CorpusError(f"{key}.path: {source.path}: no {' or '.join(endings)} file in it")
        return LocalFiles(source.format, files, folder)
    if any((folder / name).exists() for name in SAVED_DATASET):
        return None
    files = _files(folder.iterdir(), folder, KINDS)
    kinds = sorted({KINDS[file.suffix] for file in files})
    if len(kinds) > 1:
        raise CorpusError(
            f"{key}.path: {source.path}: holds files of several kinds ({', '.join(kinds)}); "
            f"say which with {key}.format"
        )
    return LocalFiles(KINDS[files[0].suffix], files, folder) if files else None


def _files(paths: Iterable[Path], folder: Path, endings: Iterable[str]) -> tuple[Path, ...]:
    """Those with one of the endings, by name; nothing hidden."""
    names = {path: path.relative_to(folder) for path in paths if path.suffix in endings}
    shown = [path for path, name in names.items() if not _hidden(name) and path.is_file()]
    return tuple(sorted(shown, key=lambda path: names[path].as_posix()))


def _hidden(name: Path) -> bool:
    return any(part.startswith(".") for part in name.parts)
